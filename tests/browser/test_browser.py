# SPDX-License-Identifier: Apache-2.0
"""The browser that other tests use: it must detect requests, errors and refused scripts."""

import pytest

from ctpprep.reports.inline import data_element, script_element, security_policy

pytestmark = pytest.mark.browser

PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>t</title>
<button onclick="this.textContent = 'clicked'">press</button>
<input oninput="document.title = this.value" value="old">
<p onmousemove="this.textContent = 'here'">nobody</p>
<noscript><b>static</b></noscript>"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / 'page.html'
        path.write_text(text)
        return path

    return write


def test_clicking_typing_and_hovering_reach_the_page(browser, write):
    page = browser.open(write(PAGE))
    page.click('button')
    page.type_text('input', 'new')
    page.hover('p')
    assert page.text('button') == 'clicked'
    assert page.evaluate('document.title') == 'new'
    assert page.text('p') == 'here'
    page.check()


def test_noscript_content_is_shown_without_scripts(browser, write):
    assert browser.open(write(PAGE), scripts=False).text('b') == 'static'


def test_requests_are_recorded_and_fail_the_check(browser, write):
    page = browser.open(write('<img src="http://127.0.0.1:9/x.png"><img src="y.png">'))
    assert [address.rpartition('/')[2] for address in page.requests] == ['x.png', 'y.png']
    with pytest.raises(AssertionError):
        page.check()


def test_script_errors_are_recorded(browser, write):
    page = browser.open(write('<script>nothing.here</script>'))
    assert 'nothing is not defined' in page.errors[0]


def test_only_scripts_of_the_policy_run(browser, write):
    text = 'document.title = JSON.parse(document.getElementById("d").textContent)'
    head = f'<meta http-equiv="Content-Security-Policy" content="{security_policy([text])}">'
    page = browser.open(write(f'{head}{data_element("d", "ü</script>")}{script_element(text)}'))
    page.check()
    assert page.evaluate('document.title') == 'ü</script>'
    page = browser.open(
        write(f'{head}<img onerror="document.title = 1" src="">{script_element("other()")}')
    )
    assert len(page.errors) == 2
    assert all('Content Security Policy' in error for error in page.errors)
