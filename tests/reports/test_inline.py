# SPDX-License-Identifier: Apache-2.0
"""Scripts and data as elements of pages, and the security policy."""

import json
import re

import pytest

from ctpprep.reports.inline import data_element, plotly_script, script_element, security_policy


def test_plotly_is_read_from_its_package():
    assert 1e6 < len(plotly_script()) < 6e6
    assert script_element(plotly_script()).startswith('<script>')


def test_script_cannot_end_its_element():
    with pytest.raises(ValueError, match='</script'):
        script_element('"</SCRIPT>"')


def test_data_are_preserved_and_cannot_end_their_element():
    content = {'sub-<script>': ['</script><!--', 'Fieber & Müller', 1.5, None]}
    element = str(data_element('rows', content))
    assert element.count('<') == 2
    text = re.fullmatch(r'<script [^>]*>(.*)</script>', element)[1]
    assert json.loads(text) == content


def test_nan_is_refused():
    with pytest.raises(ValueError, match='not JSON compliant'):
        data_element('rows', [float('nan')])


def test_policy_contains_the_hash_of_each_script():
    # openssl dgst -sha256 -binary | base64
    assert "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='" in security_policy(['alert(1)'])
    assert "script-src 'none'" in security_policy([])


def test_policy_forbids_forms_and_base_addresses():
    assert security_policy([]).endswith("form-action 'none'; base-uri 'none'")
