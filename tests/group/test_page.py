# SPDX-License-Identifier: Apache-2.0
"""The page of the group level."""

import re


def test_user_text_is_shown_as_text(three):
    (three.out / 'sub-01.html').write_text('')
    three.write_participants(
        'participant_id\tsite\nsub-01\t</script><b>x</b>\nsub-02\tB\nsub-03\tB\n'
    )
    page = three.run_group(group_column='site')
    assert '<b>x' not in page
    assert '&lt;/script&gt;&lt;b&gt;x' in page
    assert '<a href="sub-01.html#sub-01">sub-01</a>' in page
    assert 'href="sub-02.html"' not in page


def test_missing_figures_of_pairs_of_groups_are_dashes(three):
    three.write_participants('participant_id\tsite\nsub-01\tA\nsub-02\tB\nsub-03\tB\n')
    page = three.run_group(group_column='site')
    assert '<td></td>' not in page.partition('summary-table')[2].partition('<details>')[0]
    assert '–: does not apply' in page


def test_page_states_how_many_series_have_each_volume_and_why_others_lack_it(three):
    three.write_series('sub-02', '20.0', 'n/a', reason='withheld: homologues are off')
    three.write_status('sub-04', 'failed', 'no AIF')
    page = three.run_group()
    lines = dict(re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', page, re.DOTALL))
    lines = {name: ' '.join(re.sub('<.*?>', ' ', text).split()) for name, text in lines.items()}
    assert lines['Core global'] == '3 of 4 1 failed'
    assert lines['Core local'] == '2 of 4 1 local map withheld , 1 failed'
    assert lines['Core global, mL: mean (SD)'].endswith('n = 3')
    assert lines['Core local, mL: mean (SD)'].endswith('n = 2')
    assert '<td>local map withheld</td>' in page


def test_volumes_that_a_failed_check_concerns_are_struck(site):
    site.write_series('sub-01', quality='mirror_distance_status\nfail\n')
    struck = re.findall(r'class="volume doubtful">([^<]*)<', site.run_group())
    assert struck == ['10.0', '-2.5', '']


def test_failed_checks_are_named_before_warnings(site):
    names = ('a', 'b', 'c', 'd')
    header = '\t'.join(f'{name}\t{name}_status' for name in names)
    site.write_series('sub-01', quality=f'{header}\n1\twarn\t2\tpass\t3\tfail\t4\twarn\n')
    site.write(
        'sub-01/ct/sub-01_desc-qualitycontrol_ctp.json', '{"c": {"LongName": "Check of c"}}'
    )
    assert '<td>The check c fails; fails: Check of c; warns: a, d</td>' in site.run_group()


def test_one_check_that_warns_is_explained_by_its_finding(site):
    site.write_series('sub-01', quality='coverage\tcoverage_status\n40\twarn\n')
    page = site.run_group()
    assert (
        '<td>The slab contains only 40 mm of tissue: a lesion outside it is not seen</td>' in page
    )
