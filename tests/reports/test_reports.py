# SPDX-License-Identifier: Apache-2.0
"""The page of a participant: content, no requests, user text shown as text."""

import json
import re
from html import escape as escape_html
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from ctpprep.perfusion.followup import COLUMNS as FOLLOWUP_COLUMNS
from ctpprep.perfusion.quality import CHECKS
from ctpprep.reports import build_report
from ctpprep.reports.methods import list_references, render_methods
from ctpprep.reports.page import Drawing
from ctpprep.reports.places import SHOWN_IN
from ctpprep.reports.sections import FIGURES, collect_sections

SVG = '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><text>50 % "a" #b</text></svg>'
COLUMNS = (
    'region', 'hemisphere', 'normalization', 'measure', 'threshold', 'volume_ml', 'ci_low_ml',
    'ci_high_ml', 'value', 'affected_side', 'side_confidence', 'side_rule', 'reason',
)  # fmt: skip


def volume(region, normalization, measure, threshold='n/a', **cells):
    row = dict.fromkeys(COLUMNS, 'n/a') | {
        'region': region, 'normalization': normalization, 'measure': measure,
        'threshold': threshold, 'affected_side': 'right', 'side_confidence': '0.93',
        'side_rule': 'hypoperfusion', **cells,
    }  # fmt: skip
    return '\t'.join(row[name] for name in COLUMNS)


def write_series(folder, prefix, figures=('maps',)):
    """Write the tables and figures of one series."""
    (folder / 'ct').mkdir(parents=True, exist_ok=True)
    (folder / 'figures').mkdir(exist_ok=True)
    rows = [
        '\t'.join(COLUMNS),
        volume('core', 'global', 'volume', '0.3', volume_ml='61.65'),
        volume(
            'core', 'local', 'volume', '0.3', volume_ml='45.43', ci_low_ml='40', ci_high_ml='50'
        ),
        volume('hypoperfusion', 'n/a', 'volume', '6.0', volume_ml='130.3'),
        volume('hypoperfusion', 'n/a', 'volume uncalibrated', '6.0', volume_ml='170.1'),
        volume('mismatch', 'global', 'difference', volume_ml='68.65'),
        volume('mismatch', 'global', 'ratio', value='2.1135'),
        volume('mismatch', 'local', 'ratio', reason='no core to divide by'),
    ]
    (folder / 'ct' / f'{prefix}_seg-perfusion_morph.tsv').write_text('\n'.join(rows) + '\n')
    quality = {
        'coverage': '80', 'coverage_status': 'pass', 'coverage_sentence': 'Enough slices.',
        'noise': '9', 'noise_status': 'fail', 'noise_sentence': 'Too much noise.', 'extra': '3',
    }  # fmt: skip
    lines = '\t'.join(quality) + '\n' + '\t'.join(quality.values()) + '\n'
    (folder / 'ct' / f'{prefix}_desc-qualitycontrol_ctp.tsv').write_text(lines)
    for name in figures:
        (folder / 'figures' / f'{prefix}_desc-{name}_ctp.svg').write_text(SVG)


@pytest.fixture
def output_dir(tmp_path):
    write_series(tmp_path / 'sub-01', 'sub-01')
    return tmp_path


def text_of(page):
    """Return the visible text of a page, with white space collapsed."""
    texts = []
    parser = HTMLParser()
    parser.handle_data = texts.append
    parser.feed(re.sub(r'<style>.*?</style>', '', page, flags=re.DOTALL))
    return ' '.join(' '.join(texts).split())


def report(output_dir, label='01', methods='', **run_info):
    return build_report(output_dir, label, methods, run_info).read_text(encoding='utf-8')


def test_page_is_named_after_the_participant(output_dir):
    assert build_report(output_dir, 'sub-01', '', {}) == output_dir / 'sub-01.html'


def test_no_partial_page_remains(output_dir):
    build_report(output_dir, '01', '', {})
    assert [path.name for path in output_dir.iterdir() if path.is_file()] == ['sub-01.html']


def test_volumes_and_side_are_shown(output_dir):
    words = text_of(report(output_dir))
    assert 'Affected side: right confidence 0.93' in words
    assert 'Core rCBF < 30 % 61.6 mL 45.4 mL 95 % interval: 40.0 to 50.0 mL' in words
    assert 'Tmax > 6 s 130.3 mL' in words
    assert 'is not that of this volume 170.1 mL' in words
    assert '2.11 no core to divide by' in words


def test_notes_on_precomputed_maps_are_shown(output_dir):
    sidecar = output_dir / 'sub-01' / 'ct' / 'sub-01_tmax.json'
    sidecar.write_text(json.dumps({'Units': 's'}))
    page = build_report(output_dir, '01', 'text', {}).read_text()
    assert 'made elsewhere' not in page
    assert 'indicator dilution' in page
    sidecar.write_text(json.dumps({'Units': 's', 'EntryNotes': ['Tmax: taken as ms <b>']}))
    page = build_report(output_dir, '01', 'text', {}).read_text()
    assert 'Precomputed maps.' in page
    assert 'Tmax: taken as ms &lt;b&gt;' in page
    assert 'indicator dilution' not in page


def test_reason_of_withheld_local_maps_is_shown(output_dir):
    path = output_dir / 'sub-01' / 'ct' / 'sub-01_seg-perfusion_morph.tsv'
    rows = [
        '\t'.join(COLUMNS),
        volume('core', 'global', 'volume', '0.3', volume_ml='61.65'),
        volume('core', 'local', 'volume', '0.3', reason='withheld: the brain is not alike'),
        volume('defuse3', 'global', 'criteria', value='1'),
        volume('defuse3', 'local', 'criteria', reason='withheld: the brain is not alike'),
    ]
    path.write_text('\n'.join(rows) + '\n')
    words = text_of(report(output_dir))
    assert 'Local maps were withheld: the brain is not alike.' in words
    assert 'Core rCBF < 30 % 61.6 mL withheld' in words
    assert 'whatever their intervals met withheld' in words


def test_cautions_and_intended_use_are_shown(output_dir):
    words = text_of(report(output_dir))
    assert 'The 30 % threshold is not validated for local maps' in words
    assert 'The local map hides disease of the other hemisphere' in words
    assert 'Research use only' in words


def test_verdict_and_numbers_come_first(output_dir):
    words = text_of(report(output_dir))
    first = words.index('Do not use The check noise fails.')
    assert (
        first < words.index('Core, global rCBF < 30 % 61.6 mL') < words.index('Volumes in detail')
    )


def test_numbers_that_a_failed_check_concerns_are_struck(output_dir):
    page = report(output_dir)
    assert page.count('<s>') == 4
    assert 'number core_global doubtful' in page
    details = page.partition('Volumes in detail')[2]
    for volume in ('61.6 mL', '68.7 mL', '2.11', '130.3', '61.65'):
        assert re.search(f'<td[^>]* class="doubtful"[^>]*>{re.escape(volume)}', details)


def test_numbers_are_not_struck_if_no_check_failed(output_dir):
    path = output_dir / 'sub-01' / 'ct' / 'sub-01_desc-qualitycontrol_ctp.tsv'
    path.write_text(path.read_text().replace('fail', 'warn'))
    assert 'class="doubtful"' not in report(output_dir)


def test_verdicts_of_several_series_are_listed_first(output_dir):
    write_series(output_dir / 'sub-01' / 'ses-2', 'sub-01_ses-2')
    words = text_of(report(output_dir))
    assert words.index('sub-01_ses-2 do not use 61.6 mL') < words.index('Volumes in detail')


def test_summary_links_to_its_page(output_dir):
    (output_dir / 'sub-01' / 'figures' / 'sub-01_desc-summary_ctp.pdf').touch()
    assert 'href="sub-01/figures/sub-01_desc-summary_ctp.pdf"' in report(output_dir)


def test_figures_link_to_their_files(output_dir):
    assert 'href="sub-01/figures/sub-01_desc-maps_ctp.svg"' in report(output_dir)


def test_regions_are_listed(output_dir):
    path = output_dir / 'sub-01' / 'ct' / 'sub-01_desc-regions_morph.tsv'
    path.write_text('region\tcore_global\nleft MCA\t12.3\n')
    path.with_suffix('.json').write_text('{"Measured": {}}')
    assert 'region core_global left MCA 12.3' in text_of(report(output_dir))


def struck_cells(page):
    return re.findall(r'<td class="doubtful"[^>]*>([^<]*)<', page)


@pytest.mark.parametrize(('check', 'struck'), [
    ('coverage', []), ('mirror_folding', ['22.2', '33.3']), ('tmax_spread', ['7.5']),
    ('aif_peak', ['11.1', '22.2', '33.3', '7.5']),
])  # fmt: skip
def test_columns_of_regions_that_a_failed_check_concerns_are_struck(output_dir, check, struck):
    folder = output_dir / 'sub-01' / 'ct'
    grade = 'pass' if check == 'coverage' else 'fail'
    (folder / 'sub-01_desc-qualitycontrol_ctp.tsv').write_text(f'{check}_status\n{grade}\n')
    path = folder / 'sub-01_desc-regions_morph.tsv'
    path.write_text(
        'region\ttissue_ml\tcore_global_ml\tcore_local_ml\tkept_ml\ttmax\nMCA\t99.9\t11.1\t22.2\t33.3\t7.5\n'
    )
    path.with_suffix('.json').write_text('{"Measured": {}}')
    page = report(output_dir)
    table = page[page.index('Lesions and flow by region') : page.index('All volumes of')]
    assert struck_cells(table) == struck


def test_follow_up_rows_that_a_failed_check_concerns_are_struck(output_dir):
    folder = output_dir / 'sub-01' / 'ct'
    (folder / 'sub-01_desc-qualitycontrol_ctp.tsv').write_text('mirror_folding_status\nfail\n')
    path = folder / 'sub-01_desc-followup_morph.tsv'
    rows = [
        dict.fromkeys(FOLLOWUP_COLUMNS, 'n/a') | {
            'measure': 'segmentation', 'quantity': 'core', 'normalization': which, 'dice': dice,
        }
        for which, dice in (('global', '0.71'), ('local', '0.62'))
    ]  # fmt: skip
    lines = [FOLLOWUP_COLUMNS, *(row.values() for row in rows)]
    path.write_text('\n'.join('\t'.join(line) for line in lines) + '\n')
    measured = {'followup_ml': 50.4, 'followup_aligned_by': 'its header'}
    path.with_suffix('.json').write_text(json.dumps({'Measured': measured}))
    struck = struck_cells(report(output_dir))
    assert '0.62' in struck
    assert '0.71' not in struck
    assert 'Core local' not in struck


def test_verdict_links_to_what_to_look_at(output_dir):
    write_series(output_dir / 'sub-01', 'sub-01', figures=('mirror', 'maps'))
    quality = output_dir / 'sub-01' / 'ct' / 'sub-01_desc-qualitycontrol_ctp.tsv'
    grades = {
        'mirror_folding_status': 'warn',
        'coverage_status': 'warn',
        'aif_peak_status': 'pass',
    }
    quality.write_text('\t'.join(grades) + '\n' + '\t'.join(grades.values()) + '\n')
    page = report(output_dir)
    line = re.search(r'<p class="verdict look-first".*?</p>', page, re.DOTALL)[0]
    assert text_of(line).endswith('Look at: Mirror registration , Quality .')
    anchors = re.findall(r'href="#([^"]+)"', line)
    assert anchors == ['sub-01-mirror', 'sub-01-quality']
    assert all(f'id="{anchor}"' in page for anchor in anchors)


def test_usable_series_has_nothing_to_look_at(output_dir):
    quality = output_dir / 'sub-01' / 'ct' / 'sub-01_desc-qualitycontrol_ctp.tsv'
    quality.write_text('coverage_status\npass\n')
    assert 'Look at' not in text_of(report(output_dir))


def test_every_check_is_shown_in_one_figure_of_the_page():
    listed = [check for checks in SHOWN_IN.values() for check in checks]
    assert sorted(listed) == sorted({check.name for check in CHECKS})
    assert set(SHOWN_IN) <= {name for name, *_ in FIGURES}


def test_node_names_are_folded(output_dir):
    made = {'maps': [('deconvolution', ['cbf', 'tmax'])]}
    drawing = Drawing('graph', ['sub-01'], '', '', 'plot_series', made)
    page = build_report(output_dir, '01', '', {}, [drawing]).read_text()
    folded = re.findall(r'<details class="made">.*?</details>', page, flags=re.DOTALL)
    assert len(folded) == 1
    assert 'deconvolution' in folded[0]
    assert 'plot_series' not in text_of(page.replace(folded[0], ''))


def test_failed_checks_come_first(output_dir):
    words = text_of(report(output_dir))
    assert words.index('Too much noise.') < words.index('Enough slices.')


def test_checks_show_title_and_limit(output_dir):
    folder = output_dir / 'sub-01' / 'ct'
    description = {'LongName': 'Slab', 'Units': 'mm', 'WarnBelow': 50, 'FailBelow': 20}
    (folder / 'sub-01_desc-qualitycontrol_ctp.json').write_text(
        json.dumps({'coverage': description})
    )
    words = text_of(report(output_dir))
    assert 'Checks that pass (1)' in words
    assert 'Slab 80 mm at least 50 mm' in words


def test_bilateral_disease_is_shown_above_the_volumes(output_dir):
    assert 'unreliable' not in text_of(report(output_dir))
    path = output_dir / 'sub-01' / 'ct' / 'sub-01_desc-qualitycontrol_ctp.tsv'
    header, row = path.read_text().split('\n')[:2]
    path.write_text(f'{header}\tcaution\n{row}\tboth hemispheres may be <b>diseased</b>\n')
    words = text_of(report(output_dir))
    assert 'Local normalization is unreliable here. Read the global map.' in words
    assert words.index('Both hemispheres may be <b>diseased</b>.') < words.index('Core rCBF')
    assert 'Local normalization unreliable here' in words


def test_value_without_grade_is_shown(output_dir):
    assert 'Extra 3' in text_of(report(output_dir))


def test_page_sends_no_request(output_dir):
    page = report(output_dir, methods='As in [@rau2024].')
    sources = re.findall(r'(?:src|srcset|data|poster)="([^"]*)"|<link|@import|url\(', page)
    assert sources
    assert all(source.startswith('data:') for source in sources)
    assert "default-src 'none'" in page
    assert '<script' not in page


def test_markup_in_label_is_shown_as_text(tmp_path):
    label = '<img src=x onerror=alert(1)>'
    write_series(tmp_path / f'sub-{label}', f'sub-{label}')
    page = report(tmp_path, label)
    assert '<img src=x' not in page
    assert f'sub-{label}' in text_of(page)


def test_markup_in_reasons_methods_and_configuration_is_shown_as_text(output_dir):
    markup = '<b onclick=x>bold</b>'
    page = report(
        output_dir,
        methods=markup,
        failed=[{'prefix': 'sub-01_run-2', 'reason': markup}],
        settings={markup: [markup]},
    )
    assert '<b onclick' not in page
    assert text_of(page).count(markup) == 5


def test_html_marked_as_markup_is_inserted(output_dir):
    assert '<em>kept</em>' in report(output_dir, methods=Markup('<em>kept</em>'))


def test_rule_of_affected_side_is_shown(output_dir):
    words = text_of(report(output_dir))
    assert 'Affected side: right confidence 0.93 by hypoperfusion, as the medians' in words


def test_failed_series_is_shown_at_the_top_and_in_its_section(output_dir):
    failed = [{'prefix': 'sub-01_run-2', 'reason': 'No timing.'}]
    words = text_of(report(output_dir, failed=failed))
    assert '1 of 2 series failed: sub-01_run-2' in words
    assert 'Do not use This series failed: No timing. What to do: correct the cause' in words
    assert 'sub-01_run-2 do not use failed: No timing.' in words


def test_failed_step_links_to_its_crash_file(output_dir):
    failed = [{'prefix': 'sub-01_run-2', 'reason': 'No bolus.', 'records': 'sub-01/log/a "b"'}]
    assert '<a href="sub-01/log/a%20%22b%22/">' in report(output_dir, failed=failed)


def test_every_session_has_a_section_and_a_link(output_dir):
    write_series(output_dir / 'sub-02' / 'ses-1', 'sub-02_ses-1')
    write_series(output_dir / 'sub-02' / 'ses-2', 'sub-02_ses-2')
    page = report(output_dir, '02')
    for prefix in ('sub-02_ses-1', 'sub-02_ses-2'):
        assert f'href="#{prefix}"' in page
        assert f'<section id="{prefix}"' in page
    assert 'sub-01' not in text_of(page)


def test_figures_are_in_clinical_order_with_unknown_ones_last(tmp_path):
    write_series(tmp_path / 'sub-01', 'sub-01', ('motion', 'aaa', 'rcbf', 'maps'))
    shown = re.findall(r'<figure id="sub-01-(\w+)"', report(tmp_path))
    assert shown == ['maps', 'rcbf', 'motion', 'aaa']


def test_large_figures_are_moved_to_a_page_per_series(tmp_path, monkeypatch):
    for session in ('ses-1', 'ses-2'):
        write_series(tmp_path / 'sub-01', f'sub-01_{session}')
    monkeypatch.setattr('ctpprep.reports.page.MAX_BYTES', 100)
    page = report(tmp_path)
    assert 'data:image' not in page
    assert 'href="sub-01_ses-2_ctp.html"' in page
    own_page = (tmp_path / 'sub-01_ses-2_ctp.html').read_text()
    assert own_page.count('data:image') == 1
    assert 'sub-01_ses-1' not in text_of(own_page)
    monkeypatch.undo()
    assert report(tmp_path).count('data:image') == 2
    assert not list(tmp_path.glob('*_ctp.html'))


def test_verdict_links_to_figures_on_pages_of_their_own(tmp_path, monkeypatch):
    for session in ('ses-1', 'ses-2'):
        prefix = f'sub-01_{session}'
        write_series(tmp_path / 'sub-01', prefix, figures=('mirror',))
        quality = tmp_path / 'sub-01' / 'ct' / f'{prefix}_desc-qualitycontrol_ctp.tsv'
        quality.write_text('mirror_folding_status\tcoverage_status\nwarn\twarn\n')
    monkeypatch.setattr('ctpprep.reports.page.MAX_BYTES', 100)
    lines = re.findall(r'<p class="verdict look-first".*?</p>', report(tmp_path), re.DOTALL)
    assert re.findall(r'href="([^"]+)"', lines[1]) == [
        'sub-01_ses-2_ctp.html#sub-01_ses-2-mirror', '#sub-01_ses-2-quality',
    ]  # fmt: skip
    assert 'id="sub-01_ses-2-mirror"' in (tmp_path / 'sub-01_ses-2_ctp.html').read_text()


def test_truncated_viewer_file_is_logged_and_skipped(output_dir, caplog):
    (output_dir / 'sub-01/figures/sub-01_desc-viewer_ctp.json').write_text('{"shape": [1')
    assert 'data:image' in report(output_dir)
    assert 'no viewer for sub-01' in caplog.text
    assert 'sub-01_desc-viewer_ctp.json is not valid JSON' in caplog.text


def test_participant_without_files_gets_a_page(tmp_path):
    assert 'No series of this participant was processed' in text_of(report(tmp_path))


def test_configuration_is_shown(output_dir):
    words = text_of(report(output_dir, version='1.2', settings={'core_rcbf': 0.3}))
    assert 'core rcbf 0.3' in words
    assert 'ctpprep 1.2' in words


def test_citations_are_numbered_by_first_use_and_listed_with_doi():
    html, cited = render_methods('A [@wack2014; @rau2024]. B [@rau2024].')
    assert text_of(html) == 'A [ 1 , 2 ]. B [ 2 ].'
    assert [reference['doi'] for reference in list_references(cited)] == [
        '10.1186/1471-2342-14-28', '10.3174/ajnr.A8111',
    ]  # fmt: skip


def test_unknown_citation_is_shown_as_written():
    assert '[@nobody1900]' in render_methods('A [@nobody1900].')[0]


def test_headings_lists_and_emphasis_are_rendered():
    html, _ = render_methods('# Head\ntext *a* and **b**\n\n- one\n- two')
    assert re.sub(r'>\n<', '><', html) == (
        '<h3>Head</h3><p>text <em>a</em> and <strong>b</strong></p>'
        '<ul><li>one</li><li>two</li></ul>'
    )


def test_headings_of_all_levels_are_subheadings_of_the_section():
    html, _ = render_methods('# One\n## sub-01\n### Three')
    assert html.split('\n') == ['<h3>One</h3>', '<h3>sub-01</h3>', '<h3>Three</h3>']


@pytest.mark.parametrize('text', [
    'k_H = 0.733 and lambda_rel_x', 'G * (m min(M, 1.5)) / G * m', 'rCBF < 30 %, Tmax > 6 s', 'a `b` c',
    '[text](https://example.org)', '<https://example.org>', '![x](y)', 'A & B &amp; C', 'back\\*slash', '[@]',
    "the operator's \"own\" response",
])  # fmt: skip
def test_other_markdown_and_html_are_shown_as_written(text):
    assert render_methods(text)[0] == f'<p>{escape_html(text, quote=False)}</p>'.replace(
        '"', '&quot;'
    )


def test_indented_lines_are_not_code():
    html, _ = render_methods('text\n\n    indented [@rau2024]')
    assert '<p>indented [<a href="#ref-rau2024">1</a>]</p>' in html


def test_citations_in_headings_lists_and_across_lines_are_numbered():
    html, cited = render_methods('# A [@wack2014]\n- b [@rau2024]\n\nc [@rau2024;\n@nobody1900].')
    assert cited == ['wack2014', 'rau2024']
    assert text_of(html) == 'A [ 1 ] b [ 2 ] c [ 2 ].'


def test_calls_number_citations_independently():
    assert render_methods('[@wack2014]')[1] == ['wack2014']
    assert render_methods('[@rau2024]')[1] == ['rau2024']


def test_authors_are_abbreviated():
    (entry,) = list_references(['rau2024'])
    assert entry['text'].startswith('Rau A, Reisert M, Taschner CA,')
    assert 'AJNR Am J Neuroradiol 2024;45:277-283.' in entry['text']


def test_changed_global_reference_is_shown_prominently(output_dir):
    path = output_dir / 'sub-01' / 'ct' / 'sub-01_desc-global_rcbf.json'
    path.write_text('{"Reference": "tissue with Tmax <= 4 s"}')
    words = text_of(report(output_dir))
    assert 'Global reference: tissue with Tmax <= 4 s' in words
    assert 'doubtful' not in words
    path.write_text('{"Reference": "early tissue", "ReferenceReason": "only 3% of <b>tissue</b>"}')
    words = text_of(report(output_dir))
    assert 'Global reference: early tissue' in words
    assert 'The global reference is doubtful and was changed: only 3% of <b>tissue</b>.' in words


def test_regions_are_shown_with_what_judged_the_registration(output_dir):
    path = output_dir / 'sub-01' / 'ct' / 'sub-01_desc-regions_morph.tsv'
    path.write_text('region\themisphere\tremoved_ml\ndeep white matter\tleft\t6.25\n')
    measured = {'template_image': 'non-contrast CT', 'template_overlap': 0.9812}
    path.with_suffix('.json').write_text(json.dumps({'Measured': measured}))
    words = text_of(report(output_dir))
    assert 'Registered image non-contrast CT' in words
    assert 'Overlap of brain and template (Dice) 0.981' in words
    assert 'deep white matter left 6.25' in words


def test_other_templates_are_shown_by_how_well_they_were_registered(output_dir):
    for space, measured in (
        ('', {'template_overlap': 0.9812}),
        ('MNI152NLin6Asym', {'template_overlap': 0.5, 'template_failure': 'too little overlap'}),
        ('OASIS30ANTs', {'template_overlap': 0.964}),
    ):
        path = output_dir / 'sub-01' / 'ct' / f'sub-01_desc-regions{space}_morph.tsv'
        path.write_text('region\ttissue_ml\ncortex\t1.0\n')
        sidecar = {'RegionsFrom': 'tissue probabilities of X', 'Measured': measured}
        path.with_suffix('.json').write_text(json.dumps(sidecar))
    (section,) = collect_sections(output_dir, '01', [])
    assert section.template == {
        'Regions': 'tissue probabilities of X',
        'Overlap of brain and template (Dice)': '0.981',
        'Nothing was written in MNI152NLin6Asym': 'too little overlap',
        'Overlap of brain and OASIS30ANTs (Dice)': '0.964',
    }


def test_images_in_template_space_are_no_series_of_their_own(output_dir):
    for name in ('tmax', 'desc-global_rcbf'):
        path = output_dir / 'sub-01' / 'ct' / f'sub-01_space-MNI152NLin2009aSym_res-2_{name}.json'
        path.write_text('{}')
    assert report(output_dir).count('class="series"') == 1


def test_lambda_offset_and_noise_are_shown(output_dir):
    path = output_dir / 'sub-01' / 'ct' / 'sub-01_tmax.json'
    measured = {
        'lambda_rel': 0.1234,
        'tmax_offset_s': 2.5,
        'cbf_noise_excess': None,
        'noise_raw_hu': 4,
    }
    path.write_text(json.dumps({'Measured': measured}))
    words = text_of(report(output_dir))
    assert 'Lambda, relative to the largest singular value 0.123' in words
    assert '2.5 s' in words
    assert 'as scanned (median) 4 HU' in words
    assert 'noise adds to CBF' not in words
