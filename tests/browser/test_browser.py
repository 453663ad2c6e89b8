# SPDX-License-Identifier: Apache-2.0
"""The browser that the other tests look with: it must notice what they ask of it."""

import pytest

from ctpprep.reports.inline import data, policy, script

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


def test_a_page_is_clicked_typed_into_and_pointed_at(browser, write):
    page = browser.open(write(PAGE))
    page.click('button')
    page.type_text('input', 'new')
    page.hover('p')
    assert page.text('button') == 'clicked'
    assert page.evaluate('document.title') == 'new'
    assert page.text('p') == 'here'
    page.check()


def test_without_scripts_the_static_part_is_seen(browser, write):
    assert browser.open(write(PAGE), scripts=False).text('b') == 'static'


def test_requests_are_noticed_and_fail(browser, write):
    page = browser.open(write('<img src="http://127.0.0.1:9/x.png"><img src="y.png">'))
    assert [address.rpartition('/')[2] for address in page.requests] == ['x.png', 'y.png']
    with pytest.raises(AssertionError):
        page.check()


def test_errors_of_scripts_are_noticed(browser, write):
    page = browser.open(write('<script>nothing.here</script>'))
    assert 'nothing is not defined' in page.errors[0]


def test_scripts_under_the_policy_of_pages_run_and_others_do_not(browser, write):
    mine = 'document.title = JSON.parse(document.getElementById("d").textContent)'
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy([mine])}">'
    page = browser.open(write(f'{head}{data("d", "ü</script>")}{script(mine)}'))
    page.check()
    assert page.evaluate('document.title') == 'ü</script>'
    page = browser.open(
        write(f'{head}<img onerror="document.title = 1" src="">{script("other()")}')
    )
    assert len(page.errors) == 2
    assert all('Content Security Policy' in error for error in page.errors)
