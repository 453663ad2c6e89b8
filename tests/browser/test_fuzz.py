# SPDX-License-Identifier: Apache-2.0
"""Pages made of hostile or broken text: it is shown as text, and runs, requests and breaks nothing."""

import json
import random

import pytest

from ctpprep.group import run_group_level
from ctpprep.reports import build_report
from ctpprep.settings import RunSettings

pytestmark = pytest.mark.browser

TEXTS = (
    '<img src=x onerror=alert(1)>', '"><script>alert(1)</script>', "'); alert(1); ('",
    '</script><script>alert(1)//', '<svg/onload=alert(1)>', 'javascript:alert(1)',
    '<link rel=stylesheet href=http://127.0.0.1:9/a.css>', '<base href=//127.0.0.1:9/>',
    '<iframe srcdoc="<script>alert(1)</script>">', '<a href="javascript:alert(1)">x</a>',
    '<!-- ]]> --> &lt;b&gt; &#60;', '{{ 7 * 7 }} {% raw %} ${7*7} #{7*7}', '{% endblock %}{{ config }}',
    '\u202e\u05d0\u05d1 \u0627\u0644 \u2066x\u2069', '\u00e4\U0001f9e0\u0301', 'NaN', 'Infinity', '-Infinity',
    '1e400', '-0', '1,5', '%s %d \\', 'a' * 10000, '__proto__', 'constructor', '"', "'", '`', '=1+1',
    'http://127.0.0.1:9/',
)  # fmt: skip
PIECES = (
    '<', '>', '"', "'", '`', '&', ';', '{{', '}}', '${', '</script', '<!--', '=', ' ', 'on',
    '\u202e', '\\', '$',
)  # fmt: skip
# names of folders cannot contain a slash or be longer than 255 bytes
LABELS = (
    '<img src=x onerror=alert(1)>', '"onmouseover="alert(1)', "'{{7*7}}'", '\u05d0\u202eb', '&amp;$`',
    'a' * 60,
)  # fmt: skip
ROUNDS = range(4)
HANDLERS = (
    '[...document.querySelectorAll("*")].flatMap((e) => [...e.attributes])'
    '.filter((a) => /^on/i.test(a.name)).length'
)
FOREIGN = (
    'document.querySelectorAll("img[src=x], iframe, base, svg[onload], link[href^=http]").length'
)


def draw(rng):
    """Draw a hostile text, or join random pieces."""
    if rng.random() < 0.7:
        return rng.choice(TEXTS)
    return ''.join(rng.choices(PIECES, k=rng.randint(1, 40)))


def table(rows):
    return '\n'.join('\t'.join(str(cell) for cell in row) for row in rows) + '\n'


def check(browser, path):
    """Open a page, use its controls, and assert that nothing ran, was requested or broke."""
    page = browser.open(path)
    page.evaluate(
        'document.querySelectorAll("summary, th[data-column], button").forEach((e) => e.click())'
    )
    assert page.evaluate(HANDLERS) == 0
    assert page.evaluate(FOREIGN) == 0
    assert page.evaluate('document.body.innerText.length') > 100
    page.check()
    page.close()


@pytest.mark.parametrize('seed', ROUNDS)
def test_page_of_a_participant_shows_any_text_as_text(browser, tmp_path, seed):
    rng = random.Random(seed)
    label = LABELS[seed]
    folder, prefix = tmp_path / f'sub-{label}', f'sub-{label}'
    (folder / 'ct').mkdir(parents=True)
    columns = (
        'region', 'hemisphere', 'normalization', 'measure', 'threshold', 'volume_ml', 'ci_low_ml',
        'ci_high_ml', 'value', 'affected_side', 'side_confidence', 'side_rule', 'reason',
    )  # fmt: skip
    rows = [
        ('core', draw(rng), which, 'volume', draw(rng), *(draw(rng) for _ in range(8)))
        for which in ('global', 'local')
    ]
    rows.append([draw(rng) for _ in columns])
    (folder / 'ct' / f'{prefix}_seg-perfusion_morph.tsv').write_text(table([columns, *rows]))
    names = (
        'coverage',
        'coverage_status',
        'coverage_sentence',
        'drift',
        'drift_status',
        'drift_sentence',
        'status',
    )
    (folder / 'ct' / f'{prefix}_desc-qualitycontrol_ctp.tsv').write_text(
        table([names, [draw(rng) for _ in names]])
    )
    values = {
        'Units': 's',
        'EntryNotes': [draw(rng), draw(rng)],
        'Measured': {draw(rng): draw(rng), 'a': float('nan')},
    }
    values['Measured'] |= {'lambda_rel': float('inf'), draw(rng): [draw(rng), {draw(rng): None}]}
    for name in ('tmax', 'desc-hmc_ctpref', 'desc-global_rcbf'):
        (folder / 'ct' / f'{prefix}_{name}.json').write_text(json.dumps(values))
    run_info = {draw(rng): draw(rng) for _ in range(6)}
    check(browser, build_report(tmp_path, label, draw(rng), run_info))


@pytest.mark.parametrize('seed', ROUNDS)
def test_page_of_a_group_shows_any_text_as_text(browser, tmp_path, seed):
    rng = random.Random(100 + seed)
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    raw.mkdir()
    traits = [f'trait{n} {rng.choice(PIECES)}' for n in range(3)]
    people = [['participant_id', *traits]]
    for index, label in enumerate((*LABELS, '1', '2', '3', '4')):
        participant = f'sub-{label}'
        folder = out / participant / 'ct'
        folder.mkdir(parents=True)
        core = rng.choice((index * 9, index * 9, 'NaN', 'Infinity', draw(rng)))
        (folder / f'{participant}_seg-perfusion_morph.tsv').write_text(table([
            ('region', 'normalization', 'measure', 'threshold', 'volume_ml', 'reason'),
            ('core', 'global', 'volume', '0.3', core, draw(rng)),
            ('core', 'local', 'volume', '0.3', index * 7, draw(rng)),
            ('hypoperfusion', 'n/a', 'volume', '6.0', index * 12, draw(rng)),
        ]))  # fmt: skip
        (folder / f'{participant}_desc-qualitycontrol_ctp.tsv').write_text(table([
            ('status', 'caution', 'noise', 'noise_status'),
            (rng.choice(('pass', 'warn', 'fail', draw(rng))), draw(rng), draw(rng), draw(rng)),
        ]))  # fmt: skip
        people.append([participant, *(draw(rng) for _ in traits)])
    (raw / 'participants.tsv').write_text(table(people))
    run_group_level(RunSettings(raw, out, tmp_path / 'work'))
    check(browser, out / 'group.html')


def test_dialog_is_an_error(browser, tmp_path):
    (tmp_path / 'page.html').write_text(
        '<p>text</p><script>setTimeout(() => alert(1), 0)</script>'
    )
    page = browser.open(tmp_path / 'page.html')
    browser.wait(lambda: page.errors, 'dialog')
    assert page.errors == ['dialog: 1']
    page.close()
