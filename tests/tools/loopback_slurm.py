# SPDX-License-Identifier: Apache-2.0
"""Run a real SLURM on this machine, temporarily, on loopback, without systemd and control groups.

    python tests/tools/loopback_slurm.py DIR

starts one, prints how to connect to it, and stops it at Ctrl-C. Several node daemons share the host;
for the scheduler, each has CPUs and memory of its own. OverMemoryKill checks every 2 s and kills jobs
that use more memory than requested. Requires Debian's slurm-wlm and munge.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from ctpprep.io.processes import die_with_parent

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'squeue', 'scancel', 'scontrol', 'sinfo')
SEARCHED = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'
PATIENCE = 60  # s until all nodes are idle
CONF = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=1,bf_interval=5
MpiDefault=none
ReturnToService=2
MaxArraySize={max_array}
MinJobAge=300
InactiveLimit=0
KillWait=5
DefMemPerCPU=500
MailProg=/bin/true
"""


def missing_programs() -> list[str]:
    """List the programs that are not installed."""
    return [name for name in PROGRAMS if not shutil.which(name, path=SEARCHED)]


def free_ports(n: int) -> list[int]:
    """Find unused ports; another such cluster may be running."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for port in sockets:
            port.bind(('127.0.0.1', 0))
        return [port.getsockname()[1] for port in sockets]


@contextlib.contextmanager
def loopback_slurm(folder: Path, nodes=2, cpus=2, memory_mb=4000, max_array=4):
    """Start a cluster and stop it.

    Parameters
    ----------
    folder : Path
        For keys, state and logs. Its path must be short, as that of a socket in it.
    nodes, cpus, memory_mb : int
        Nodes, and CPUs and memory of each.
    max_array : int
        Upper limit of the indices of a job array, exclusive.

    Yields
    ------
    dict
        Environment in which ``sbatch`` and the other commands use this cluster.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # required by munged
    key = folder / 'munge.key'
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    port, *node_ports = free_ports(1 + nodes)
    host = socket.gethostname().partition('.')[0]
    lines = CONF.format(
        folder=folder, host=host, user=getpass.getuser(), port=port, max_array=max_array
    )
    for number, node_port in enumerate(node_ports, 1):
        lines += (
            f'NodeName=cn{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} '
            f'CPUs={cpus} CoresPerSocket={cpus} RealMemory={memory_mb}\n'
        )
    lines += 'PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n'
    (folder / 'slurm.conf').write_text(lines)
    environment = {k: v for k, v in os.environ.items() if not k.startswith('SLURM_')}
    environment |= {'SLURM_CONF': f'{folder}/slurm.conf', 'PATH': SEARCHED}
    daemons = [
        ['munged', '--foreground', f'--key-file={key}', f'--socket={folder}/munge.sock',
         f'--pid-file={folder}/munged.pid', f'--log-file={folder}/munged.log',
         f'--seed-file={folder}/munge.seed'],
        ['slurmctld', '-D'],
        *(['slurmd', '-D', '-N', f'cn{number}'] for number in range(1, nodes + 1)),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for command in daemons:
            name = command[0]
            if name == 'slurmd':
                (folder / f'spool-{command[-1]}').mkdir(exist_ok=True)
                name += f'-{command[-1]}'
            log = stack.enter_context((folder / f'{name}.out').open('w'))
            path = shutil.which(command[0], path=SEARCHED)
            daemon = subprocess.Popen(
                [path, *command[1:]], env=environment, stdout=log, stderr=log,
                preexec_fn=die_with_parent,
            )  # fmt: skip
            stack.callback(_stop, daemon)
            if name == 'munged':
                _wait_until((folder / 'munge.sock').exists, folder)
        _wait_until(lambda: _idle(environment) == nodes, folder)
        yield environment
        subprocess.run(['scancel', '--user', getpass.getuser()], env=environment, check=False)


def _idle(environment):
    """Count the nodes that are ready."""
    command = ['sinfo', '--noheader', '--states=idle', '--format=%D']
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return sum(map(int, process.stdout.split()))


def _wait_until(condition, folder):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            output = ''.join(path.read_text()[-1000:] for path in sorted(folder.glob('*.out')))
            raise RuntimeError(
                f'the cluster in {folder} did not start within {PATIENCE} s; its output:\n{output}'
            )
        time.sleep(0.1)


def _stop(daemon):
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def main(argv) -> int:
    """Run a cluster until Ctrl-C."""
    if absent := missing_programs():
        sys.exit(f'not installed: {", ".join(absent)} (Debian: apt-get install slurm-wlm munge)')
    with loopback_slurm(Path(argv[0]).absolute()) as environment:
        print(f'export SLURM_CONF={environment["SLURM_CONF"]}', flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
