# SPDX-License-Identifier: Apache-2.0
"""Scripts and data inside of pages."""

import json
import re

import pytest

from ctpprep.reports.inline import data, plotly_script, policy, script


def test_plotly_comes_with_its_package():
    assert 1e6 < len(plotly_script()) < 6e6
    assert script(plotly_script()).startswith('<script>')


def test_a_script_cannot_end_its_element():
    with pytest.raises(ValueError, match='</script'):
        script('"</SCRIPT>"')


def test_data_survive_and_cannot_end_their_element():
    content = {'sub-<script>': ['</script><!--', 'Fieber & Müller', 1.5, None]}
    written = str(data('rows', content))
    assert written.count('<') == 2
    inside = re.fullmatch(r'<script [^>]*>(.*)</script>', written)[1]
    assert json.loads(inside) == content


def test_no_figure_that_is_no_number_reaches_a_page():
    with pytest.raises(ValueError):
        data('rows', [float('nan')])


def test_the_policy_names_the_hash_of_each_script():
    # openssl dgst -sha256 -binary | base64
    assert "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='" in policy(['alert(1)'])
    assert "script-src 'none'" in policy([])


def test_the_policy_sends_no_form_and_takes_no_other_base():
    assert policy([]).endswith("form-action 'none'; base-uri 'none'")
