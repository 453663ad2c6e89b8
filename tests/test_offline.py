# SPDX-License-Identifier: Apache-2.0
"""The command needs no network and does not try to reach one.

It runs once in a network namespace without interfaces, where such are allowed, with a hook in each of
its Python processes that notes every attempt to look up a name or to connect.
"""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ctpprep.phantom import write_bids

# Python imports this module at the start of every process that finds it.
HOOK = """\
import os, sys

def note(*words):
    with open(os.environ['NETWORK_LOG'], 'a') as log:
        log.write(' '.join(map(str, words)) + '\\n')

def watch(event, args):
    if event in ('socket.getaddrinfo', 'socket.gethostbyname', 'socket.gethostbyaddr'):
        note('lookup', args)
    elif event in ('socket.connect', 'socket.sendto', 'socket.sendmsg') and args[0].family != 1:
        note('connect', args)

note('watching', os.getpid())
sys.addaudithook(watch)
os.register_at_fork(after_in_child=lambda: note('watching', os.getpid()))
"""


def find_isolation():
    """Give a command that runs another without network interfaces, or None."""
    for options in (['--map-current-user', '--net'], ['--net']):
        command = [shutil.which('unshare') or 'unshare', *options]
        try:
            if (
                subprocess.run([*command, 'true'], capture_output=True, check=False).returncode
                == 0
            ):
                return command
        except OSError:
            return None
    return None


ISOLATION = find_isolation()


def watched(folder, command):
    """Run a command with the hook; give the process and what was noted."""
    hooks = folder / 'hooks'
    hooks.mkdir(exist_ok=True)
    (hooks / 'sitecustomize.py').write_text(HOOK)
    log = folder / 'network.log'
    log.write_text('')
    environment = os.environ | {'PYTHONPATH': str(hooks), 'NETWORK_LOG': str(log)}
    environment = {k: v for k, v in environment.items() if k not in ('TEMPLATEFLOW_HOME', 'NO_ET')}
    environment.pop('TEMPLATEFLOW_AUTOUPDATE')
    run = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment,
        check=False,
    )  # fmt: skip
    return run, log.read_text().splitlines()


@pytest.fixture(scope='module')
def isolated(coarse_head, tmp_path_factory):
    """Run the command once: without network if that can be had, with the hook in any case."""
    folder = tmp_path_factory.mktemp('offline')
    write_bids(coarse_head, folder / 'raw', '01')
    command = [*(ISOLATION or []), sys.executable, '-m', 'ctpprep', folder / 'raw', folder / 'out']
    command += ['participant', '-w', folder / 'work', '--nprocs', '2']
    run, noted = watched(folder, command)
    return SimpleNamespace(run=run, noted=noted, out=folder / 'out')


@pytest.mark.skipif(ISOLATION is None, reason='no network namespaces here (unshare --net)')
def test_a_namespace_has_no_interface_that_is_up():
    code = 'import socket; socket.create_connection(("127.0.0.1", 9), 5)'
    run = subprocess.run([*ISOLATION, sys.executable, '-c', code], capture_output=True, text=True,
                         check=False)  # fmt: skip
    assert 'Network is unreachable' in run.stderr


@pytest.mark.skipif(ISOLATION is None, reason='no network namespaces here (unshare --net)')
def test_the_command_needs_no_network(isolated):
    assert isolated.run.returncode == 0, isolated.run.stderr
    assert isolated.run.stderr == ''
    assert (isolated.out / 'sub-01.html').is_file()


def test_the_command_tries_no_connection(isolated):
    processes = {line for line in isolated.noted if line.startswith('watching')}
    assert len(processes) >= 4  # main process, server of forks, two workers
    assert [line for line in isolated.noted if not line.startswith('watching')] == []


def test_an_attempt_would_be_noted(tmp_path):
    code = (
        'import os, socket, sys\n'
        'from concurrent.futures import ProcessPoolExecutor\n'
        'def look():\n'
        '    try: socket.getaddrinfo("localhost", 80)\n'
        '    except OSError: pass\n'
        '    try: socket.create_connection(("127.0.0.1", 9), 1)\n'
        '    except OSError: pass\n'
        'if os.fork() == 0:\n'
        '    look(); os._exit(0)\n'
        'os.wait()\n'
    )
    run, noted = watched(tmp_path, [sys.executable, '-c', code])
    assert run.returncode == 0, run.stderr
    assert {line.split()[0] for line in noted} == {'watching', 'lookup', 'connect'}
