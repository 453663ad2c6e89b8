# SPDX-License-Identifier: Apache-2.0
"""Ask a scheduler whether a job is still in its queue.

nipype's own queries wait for ever for a job that LSF or SGE has forgotten, and take any failure of a
query for a job that waits (PBS) or has ended (SLURM).
"""

import re
import subprocess
from collections.abc import Callable
from typing import NamedTuple

QUERY_TIMEOUT = 60  # s


class Answer(NamedTuple):
    """What a scheduler answers about a job."""

    in_queue: bool | None  # None if the scheduler did not answer
    words: str = ''  # why there is no answer, or why the job will never run


# commands that submit a job and ask about it
COMMANDS = {
    'SLURM': ('sbatch', 'squeue'),
    'SGE': ('qsub', 'qstat'),
    'PBS': ('qsub', 'qstat'),
    'LSF': ('bsub', 'bjobs'),
    'OAR': ('oarsub', 'oarstat'),
    'Condor': ('condor_qsub', 'condor_q'),
}


def ask_slurm(job: str) -> Answer:
    """Ask squeue; a job that ended minutes ago is an invalid id."""
    code, output, error = _run('squeue', '--noheader', '--jobs', job)
    if code and 'Invalid job id' not in error:
        return Answer(None, last_line(error))
    return Answer(not code and job in output)


def ask_pbs(job: str) -> Answer:
    """Ask qstat of PBS Pro, OpenPBS or Torque; C and F are completed and finished jobs."""
    code, output, error = _run('qstat', '-f', job)
    if re.search('unknown job|has finished', error, re.IGNORECASE):
        return Answer(False)
    state = re.search(r'job_state = (\w)', output)
    return Answer(None, last_line(error)) if code or not state else Answer(state[1] not in 'CFX')


def ask_sge(job: str) -> Answer:
    """Ask qstat of SGE; a job in state Eqw has an error reason and never runs."""
    code, output, error = _run('qstat', '-j', job)
    if re.search('jobs? do(es)? not exist', output + error):
        return Answer(False)
    if code:
        return Answer(None, last_line(error))
    reason = re.search(r'^error reason[^:]*:\s*(.+)', output, re.MULTILINE)
    return Answer(not reason, reason[1].strip() if reason else '')


def ask_lsf(job: str) -> Answer:
    """Ask bjobs; ZOMBI is a job that was killed on a host that does not respond."""
    _, output, error = _run('bjobs', job)
    if 'is not found' in output + error:
        return Answer(False)
    states = [
        line.split()[2] for line in output.splitlines() if re.match(rf'{job}\s+\S+\s+\S', line)
    ]
    return (
        Answer(states[0] not in ('DONE', 'EXIT', 'ZOMBI'))
        if states
        else Answer(None, last_line(error))
    )


ASK: dict[str, Callable[[str], Answer]] = {
    'SLURM': ask_slurm, 'PBS': ask_pbs, 'SGE': ask_sge, 'LSF': ask_lsf
}  # fmt: skip


def _run(*command: str) -> tuple[int, str, str]:
    """Run a query; return its exit code, its output, and its errors."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, errors='replace', check=False,
            timeout=QUERY_TIMEOUT,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, '', str(error)
    silent = f'{command[0]} ended with code {answer.returncode} and no message'
    return answer.returncode, answer.stdout, answer.stderr.strip() or silent


def last_line(text: str) -> str:
    """Return the last line with words of what a command printed; '' if there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ''
