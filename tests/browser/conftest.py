# SPDX-License-Identifier: Apache-2.0
"""Pages in a real Chromium: headless, without network, driven over a pipe (Chrome DevTools protocol).

Debian's `chromium` is enough; no Python package is needed. CTPPREP_CHROMIUM is its path; without it,
PATH is searched.

    def test_table_sorts(browser, page_file):
        page = browser.open(page_file, width=1400)
        page.click('th[data-column="core"]')
        assert page.evaluate('document.querySelector("td").textContent') == '1.0'
        page.check()
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
OPTIONS = (
    '--headless',
    '--no-sandbox',  # root in a container has none
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-quic',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-first-run',
    '--host-resolver-rules=MAP * ~NOTFOUND',  # no host name is resolved: no network
    '--proxy-server=127.0.0.1:9',
    '--force-device-scale-factor=1',
    '--hide-scrollbars',
    '--remote-debugging-pipe',
)
LIMIT_S = 60
BLANK = 'about:blank'


class BrowserError(AssertionError):
    """The browser returned an error, or a wait timed out."""


class Browser:
    """A Chromium process; each page is a tab.

    Parameters
    ----------
    program : str
    folder : Path
        Folder of its profile.
    """

    def __init__(self, program: str, folder: Path) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        def connect() -> None:  # Chromium reads file descriptor 3 and writes 4
            reads, writes = os.dup(to_browser), os.dup(from_browser)
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        self._process = subprocess.Popen(
            [program, *OPTIONS, f'--user-data-dir={folder}', BLANK],
            preexec_fn=connect, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b''
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._pages: dict[str, Page] = {}

    def open(
        self, path: Path, width: int = 1400, height: int = 1000, scripts: bool = True
    ) -> 'Page':
        """Load a file and wait until it is complete.

        Parameters
        ----------
        path : Path
        width, height : int
            Of the window, pixels.
        scripts : bool
            Whether JavaScript is on.
        """
        target = self.send('Target.createTarget', url=BLANK)['targetId']
        session = self.send('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        page = self._pages[session] = Page(self, session, target)
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            page.send(f'{domain}.enable')
        page.send('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        if not scripts:
            page.send('Emulation.setScriptExecutionDisabled', value=True)
        page.url = Path(path).absolute().as_uri()
        page.send('Page.navigate', url=page.url)
        # polled: the load event can get lost when the tab changes its process
        url = json.dumps(page.url)
        page.wait_for(f'document.readyState === "complete" && location.href === {url}')
        return page

    def send(self, method: str, session: str = '', **params: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        number = self.post(method, session, **params)
        self.wait(lambda: number in self._answers, method)
        answer = self._answers.pop(number)
        if 'error' in answer:
            raise BrowserError(f'{method}: {answer["error"]["message"]}')
        return answer['result']

    def post(self, method: str, session: str = '', **params: Any) -> int:
        """Send a command without waiting for its answer, and return its number."""
        number = next(self._numbers)
        message: dict[str, Any] = {'id': number, 'method': method, 'params': params}
        if session:
            message['sessionId'] = session
        remaining = json.dumps(message).encode() + b'\0'
        while remaining:
            remaining = remaining[os.write(self._out, remaining) :]
        return number

    def wait(self, condition: Any, what: str) -> None:
        """Read messages of the browser until a condition is true."""
        end = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > end:
                raise BrowserError(f'no {what} within {LIMIT_S} s')
            if select.select([self._in], [], [], 0.1)[0]:
                self._read()

    def _read(self) -> None:
        chunk = os.read(self._in, 1 << 20)
        if not chunk:
            raise BrowserError('the browser exited')
        *messages, self._buffer = (self._buffer + chunk).split(b'\0')
        for message in map(json.loads, messages):
            if 'id' in message:
                self._answers[message['id']] = message
            elif message.get('sessionId') in self._pages:
                self._pages[message['sessionId']].record(message['method'], message['params'])

    def close(self) -> None:
        """Close the browser."""
        try:
            self.send('Browser.close')
        except (BrowserError, OSError):
            self._process.kill()
        self._process.wait(20)
        os.close(self._out)
        os.close(self._in)


class Page:
    """A page in a tab.

    Attributes
    ----------
    requests : list of str
        Addresses requested, except the page itself and embedded content (data:, blob:).
    errors : list of str
        Exceptions of scripts, dialogs, and errors on the console (such as a refused request).
    """

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.browser, self.session, self.target = browser, session, target
        self.url = ''
        self.requests: list[str] = []
        self.errors: list[str] = []

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol for this page."""
        return self.browser.send(method, self.session, **params)

    def record(self, event: str, params: dict[str, Any]) -> None:
        """Record requests and errors."""
        if event == 'Network.requestWillBeSent':
            address = params['request']['url']
            if address.partition('#')[0] != self.url and not address.startswith(
                ('data:', 'blob:', 'about:')
            ):
                self.requests.append(address)
        elif event == 'Runtime.exceptionThrown':
            details = params['exceptionDetails']
            self.errors.append(details.get('exception', {}).get('description', details['text']))
        elif event == 'Log.entryAdded' and params['entry']['level'] == 'error':
            self.errors.append(params['entry']['text'])
        elif event == 'Page.javascriptDialogOpening':
            self.errors.append(f'dialog: {params["message"]}')
            self.browser.post('Page.handleJavaScriptDialog', self.session, accept=False)
        elif event == 'Runtime.consoleAPICalled' and params['type'] == 'error':
            self.errors.append(' '.join(str(arg.get('value', '')) for arg in params['args']))

    def check(self) -> None:
        """Assert that there were no requests and no errors."""
        assert self.requests == []
        assert self.errors == []

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression, after its promise is resolved."""
        answer = self.send('Runtime.evaluate', expression=script, returnByValue=True,
                           awaitPromise=True)  # fmt: skip
        if 'exceptionDetails' in answer:
            details = answer['exceptionDetails']
            raise BrowserError(details.get('exception', {}).get('description', details['text']))
        return answer['result'].get('value')

    def wait_for(self, script: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        end = time.monotonic() + LIMIT_S
        while not (value := self._try(script)):
            if time.monotonic() > end:
                raise BrowserError(f'not true within {LIMIT_S} s: {script}')
            time.sleep(0.05)
        return value

    def _try(self, script: str) -> Any:
        """Evaluate an expression; None during navigation."""
        try:
            return self.evaluate(script)
        except BrowserError as error:
            if 'context' in str(error) or 'navigated' in str(error):
                return None
            raise

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Scroll an element into view; return left, top, width and height in the window, pixels."""
        box = self.evaluate(
            f'(() => {{ const e = document.querySelector({json.dumps(selector)});'
            ' if (!e) return null; e.scrollIntoView({block: "center", behavior: "instant"});'
            ' const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; })()'
        )
        if box is None:
            raise BrowserError(f'no element matches {selector}')
        x, y, width, height = box
        return x, y, width, height

    def point(self, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """Return a point of an element, by fractions of its width and height."""
        x, y, width, height = self.box(selector)
        return x + across * width, y + down * height

    def hover(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Move the mouse onto an element."""
        self._mouse('mouseMoved', *self.point(selector, across, down))

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Move to an element, press and release."""
        x, y = self.point(selector, across, down)
        self._mouse('mouseMoved', x, y)
        for kind in ('mousePressed', 'mouseReleased'):
            self._mouse(kind, x, y, button='left', clickCount=1)

    def wheel(self, selector: str, delta: float, across: float = 0.5, down: float = 0.5) -> None:
        """Scroll the wheel over an element; positive is down."""
        x, y = self.point(selector, across, down)
        self._mouse('mouseWheel', x, y, deltaX=0, deltaY=delta)

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.send('Input.dispatchMouseEvent', type=kind, x=x, y=y, **more)

    def press(self, key: str) -> None:
        """Press a key by name, such as ArrowDown, in the focused element."""
        for kind in ('keyDown', 'keyUp'):
            self.send('Input.dispatchKeyEvent', type=kind, key=key, code=key)

    def type_text(self, selector: str, text: str) -> None:
        """Replace the text of a field."""
        self.evaluate(f'document.querySelector({json.dumps(selector)}).select()')
        self.send('Input.insertText', text=text)

    def text(self, selector: str) -> str:
        """Return the visible text of an element."""
        return self.evaluate(f'document.querySelector({json.dumps(selector)}).innerText')

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        """Write a PNG of the whole page, or of the window."""
        shot = self.send('Page.captureScreenshot', captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot['data']))
        return path

    def close(self) -> None:
        """Close the tab."""
        self.browser.send('Target.closeTarget', targetId=self.target)


@pytest.fixture(scope='session')
def browser(tmp_path_factory):
    """Chromium without network; tests are skipped if it is not installed."""
    program = os.environ.get('CTPPREP_CHROMIUM') or next(
        filter(None, map(shutil.which, NAMES)), ''
    )
    if not program or shutil.which(program) is None:
        pytest.skip(
            f'no Chromium: CTPPREP_CHROMIUM names {program}, which is not executable' if program
            else f'no Chromium: none of {", ".join(NAMES)} is installed; install one or set CTPPREP_CHROMIUM'
        )  # fmt: skip
    chromium = Browser(program, tmp_path_factory.mktemp('profile'))
    yield chromium
    chromium.close()
