# SPDX-License-Identifier: Apache-2.0
"""Planted phrases and names are reported with their line; idiomatic English is not."""

import pytest

from check_prose import check_page, check_source, check_tree, main

CLEAN = '"""Read a table; there is no second pass."""\n'


def phrases(source):
    return [(violation.line, violation.phrase) for violation in check_source(source)]


@pytest.mark.parametrize(
    ('text', 'phrase'),
    [
        ('the log tells which', 'tells'),
        ('it is told', 'told'),
        ('what the header says', 'says'),
        ('0 stands for none', 'stands for'),
        ('what stands there', 'stands'),
        ('the group level knows no such option', 'knows'),
        ('a caution is no verdict', 'is no'),
        ('they are no slices', 'are no'),
        ('Likewise for maps', 'Likewise'),
        ('maps made\nelsewhere', 'made elsewhere'),
        ('are passed over', 'passed over'),
        ('are read, too.', ', too'),
        ('are read, too', ', too'),
        ('the file holds', 'file holds'),
        ('held in one table', 'held in one table'),
        ('the folder that lies beside', 'folder that lies'),
        ('what counts is', 'what counts'),
        ('counts as failed', 'counts as'),
        ('a map in its stead', 'in its stead'),
        ('the file is not there', 'is not there'),
        ('it is not any more', 'not any more'),
        ('CBF reads too high', 'reads too high'),
    ],
)
def test_banned_phrase_is_reported(text, phrase):
    assert phrases(f'"""{text}"""') == [(1, phrase)]


@pytest.mark.parametrize(
    'text',
    [
        'There is no infarct; it is no longer than 3 s.',
        'Standard values, a standalone script; the bolus stands out.',
        'At, say, 5 s, the known truth and an unknown side.',
        'Too few voxels, too late; a file too large to read.',
        'The counts of voxels; holds the lock; voxels lie below the limit.',
        'Passed to the function over stdin.',
    ],
)
def test_idiomatic_text_passes(text):
    assert phrases(f'"""{text}"""') == []


@pytest.mark.parametrize(
    ('source', 'phrase'),
    [
        ('def f():\n    """Tell it."""', (2, 'Tell')),
        ('class C:\n    """Line.\n\n    It knows.\n    """', (4, 'knows')),
        ('x = 1\n# it is\n# no file', (2, 'is no')),
        ('x = 1  # it stands for y', (1, 'stands for')),
        ("def f():\n    raise ValueError(f'{x} is no number')", (2, 'is no')),
        ("raise UsageError('a '\n    'file holds it')", (1, 'file holds')),
        ("return_value = UsageError('it is no file')", (1, 'is no')),
        ("logger.info('%s is told', x)", (1, 'told')),
        ("warnings.warn('it says so')", (1, 'says')),
        ("sys.stderr.write('it says so')", (1, 'says')),
        ("print('it says so')", (1, 'says')),
        ("parser.add_argument('--x', help='it says so')", (1, 'says')),
        ("File(desc='it says so')", (1, 'says')),
        ("def _describe(x):\n    text = 'it knows'\n    return f'{text} it'", (2, 'knows')),
    ],
)
def test_docstrings_comments_and_messages_are_checked(source, phrase):
    assert phrases(source) == [phrase]


def test_long_exceptions_and_help_texts_are_reported():
    long, short = 'word ' * 31, 'word ' * 30
    assert phrases(f"raise ValueError('{long}')") == [(1, '31 words in "word word word word ..."')]
    assert phrases(f"_setting(1, '', '{long}')") == [(1, '31 words in "word word word word ..."')]
    assert phrases(f"raise ValueError('{short}')\nx = '{long}'") == []


def test_other_strings_are_not_checked():
    assert phrases("PATTERN = 'it tells, too'\nf('knows')") == []


@pytest.mark.parametrize(
    'source',
    [
        'found = 1',
        'for each in x: pass',
        'y = [each for each in x]',
        'def f(told): pass',
        'with x as here: pass',
        'if (mine := x): pass',
        'self.said = 1',
        'a, (given, b) = x',
        'try: pass\nexcept E as told: pass',
        'match x:\n    case [found]: pass',
        'lambda each: 1',
        'def tell_x(): pass',
        'def _say(): pass',
        'async def know_all(): pass',
        'def __holds(): pass',
    ],
)
def test_banned_name_is_reported(source):
    assert len(check_source(source)) == 1


def test_use_of_a_name_and_legitimate_names_pass():
    assert check_source('print(x.found, each)\ndef find(series): return tellurium') == []


def pages(text):
    return [(violation.line, violation.phrase) for violation in check_page(text)]


@pytest.mark.parametrize(
    ('text', 'phrase'),
    [
        ('# Title\n\nThe log tells which.', (3, 'tells')),
        ('* one\n    that says so', (2, 'says')),
        ('| a | b |\n|---|---|\n| x | it knows |', (3, 'knows')),
        ('0.5 GB a process', (1, 'GB a process')),
        ('core is over-read', (1, 'over-read')),
        ('word ' * 21, (1, 'line of 105')),
        (
            '| a |\n|---|\n| ' + 'word ' * 13 + '|',
            (3, '13 words in cell "word word word word ..."'),
        ),
    ],
)
def test_markdown_is_checked(text, phrase):
    assert pages(text) == [phrase]


@pytest.mark.parametrize(
    'text',
    [
        '```\nit tells\n```\nText.',
        'Text:\n\n    it tells, too\n\nText.',
        'Write `tells`, or a\nlink to [a page](it-tells.md).',
        '<!-- it tells -->',
        '    ' + 'x' * 120,
        '[x](' + 'y' * 120 + ')',
        '| a |\n|---|\n| `' + 'word ' * 13 + '` |',
        '| check | b |\n|---|---|\n| x | ' + 'word ' * 13 + '|',
        'Files of a series.',
    ],
)
def test_code_links_and_tables_of_checks_are_not_checked(text):
    assert pages(text) == []


@pytest.fixture
def tree(tmp_path):
    for name, text in {
        'ctpprep/clean.py': CLEAN,
        'ctpprep/cli/old.py': '# it tells\n',
        'scripts/tool.py': CLEAN,
        'docs/page.md': 'A clean page.\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_violation_is_one_line_with_file_and_suggestion(tree):
    (line,) = check_tree(tree)
    assert line.startswith('ctpprep/cli/old.py:1: tells -> log, return')


def test_pages_of_the_tree_are_checked_but_not_built_ones(tree):
    for name in ('README.md', 'docs/_build/old.md'):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text('It tells.\n')
    lines = check_tree(tree)
    assert [line.partition(':')[0] for line in lines] == ['ctpprep/cli/old.py', 'README.md']


def test_command_returns_1_if_a_file_has_violations(tree, capsys):
    assert main([str(tree / 'ctpprep/cli/old.py')]) == 1
    assert 'old.py:1: tells -> ' in capsys.readouterr().out
    assert main([str(tree / 'ctpprep/clean.py')]) == 0
