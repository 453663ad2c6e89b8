# SPDX-License-Identifier: Apache-2.0
"""The tutorial from the PACS to the report and back, run as it is written."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pydicom = pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')
pytest.importorskip('pynetdicom', reason='needs the extra ctpprep[dicom]')

from tests.dicom.test_servers import free_port  # noqa: E402

pytestmark = pytest.mark.dicom
ROOT = Path(__file__).resolve().parents[2]


def read_steps(port):
    """List what the page runs and shows: (language, text)."""
    text = (ROOT / 'docs' / 'pacs.md').read_text().replace('11112', str(port))
    return re.findall(r'^```(bash|python|text)\n(.*?)^```', text, re.MULTILINE | re.DOTALL)


def run_all(steps, folder):
    """Run the steps in one shell, as a user would; return what each printed."""
    lines = ['set -e']
    for language, text in steps:
        lines += ['echo "== step"']
        if language == 'bash':
            lines.append(text)
        elif language == 'python':
            lines.append(f"python - <<'END'\n{text}END")
    environment = os.environ | {
        'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]),
        'PYTHONPATH': str(ROOT),
    }
    with (folder / 'log').open('w') as log:
        shell = subprocess.Popen(
            ['bash', '-c', '\n'.join(lines)], cwd=folder, env=environment, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        code = shell.wait()
    os.killpg(shell.pid, signal.SIGTERM)  # the server that the page starts
    output = (folder / 'log').read_text()
    assert code == 0, output[-4000:]
    return output.split('== step\n')[1:]


def test_the_tutorial_runs_and_shows_what_it_says(tmp_path):
    (tmp_path / 'data').symlink_to(ROOT / 'data')
    steps = read_steps(free_port())
    assert sum(language == 'bash' for language, _ in steps) == 7
    shown = 0
    printed = ''
    for (language, text), output in zip(steps, run_all(steps, tmp_path), strict=True):
        if language == 'text':
            assert text in printed
            shown += 1
        else:
            printed = output
    assert shown == 4
    assert (tmp_path / 'out' / 'sub-001.html').exists()
    received = [pydicom.dcmread(path) for path in (tmp_path / 'received').iterdir()]
    sent = [pydicom.dcmread(path) for path in (tmp_path / 'objects').rglob('*.dcm')]
    assert {ds.SOPInstanceUID for ds in received} == {ds.SOPInstanceUID for ds in sent}
    assert len(sent) == 10
