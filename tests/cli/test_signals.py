# SPDX-License-Identifier: Apache-2.0
"""Ending on a signal; test_interruption ends whole runs."""

import signal
import subprocess
import sys

import psutil
import pytest

PATIENCE = 300  # s, on a busy machine
RUN = (
    'import subprocess, sys, time\n'
    'from ctpprep.cli.signals import end_on_signals\n'
    'worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],\n'
    '                          stderr=subprocess.DEVNULL)\n'
    'with end_on_signals(uses_scheduler=True):\n'
    '    print(worker.pid, flush=True)\n'
    '    time.sleep(600)\n'
)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_run_ends_even_if_its_output_is_not_read(number):
    """As with `2>&1 | tee log`, where Ctrl-C also ends tee."""
    process = subprocess.Popen(
        [sys.executable, '-c', RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    worker = psutil.Process(int(process.stdout.readline()))
    process.stderr.close()
    process.stdout.close()
    process.send_signal(number)
    assert process.wait(timeout=PATIENCE) == 128 + number
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_the_message_mentions_jobs_on_a_cluster():
    process = subprocess.Popen(
        [sys.executable, '-c', RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.terminate()
    assert 'after cancelling the remaining jobs on the cluster' in process.communicate()[1]
