# SPDX-License-Identifier: Apache-2.0
"""Ending at a signal; whole runs are ended in test_interruption."""

import signal
import subprocess
import sys

import psutil
import pytest

RUN = (
    'import subprocess, sys, time\n'
    'from ctpprep.cli.signals import ending_at_once\n'
    'worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],\n'
    '                          stderr=subprocess.DEVNULL)\n'
    'with ending_at_once(jobs=True):\n'
    '    print(worker.pid, flush=True)\n'
    '    time.sleep(60)\n'
)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_run_ends_although_nobody_reads_what_it_says(number):
    """As with `2>&1 | tee log`, where Ctrl-C ends tee, too."""
    process = subprocess.Popen(
        [sys.executable, '-c', RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    worker = psutil.Process(int(process.stdout.readline()))
    process.stderr.close()
    process.stdout.close()
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_jobs_on_a_cluster_are_not_forgotten():
    process = subprocess.Popen(
        [sys.executable, '-c', RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.terminate()
    assert 'cancel those there' in process.communicate()[1]
