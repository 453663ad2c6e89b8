# SPDX-License-Identifier: Apache-2.0
"""Run ctpprep on all participants of a dataset as SLURM array jobs, and show their states.

    ctpprep-cluster submit BIDS_DIR OUT_DIR [--mem 3G ...] [-- options of ctpprep]
    ctpprep-cluster status BIDS_DIR OUT_DIR
    ctpprep-cluster submit BIDS_DIR OUT_DIR --rerun [--mem 6G ...] [-- ...]
    ctpprep-cluster list BIDS_DIR OUT_DIR
    ctpprep-cluster copy DIR

On a login node where ctpprep is not installed, run the copy: python3 ctpprep_cluster.py submit ...
It needs Python 3.6 or newer and ctpprep.sbatch beside it, nothing else.

The state of a participant comes from OUT_DIR/logs/sub-<label>_status.json and the queue:

    succeeded      every series succeeded
    failed         a series failed, with the cause by ctpprep
    nothing        there is no CT perfusion series
    stopped        the task ended before ctpprep did: killed, cancelled, or not found
    running, waiting
    not submitted

Exit code of status: 0 if all participants with a series succeeded, 1 otherwise.
"""

import argparse
import collections
import csv
import getpass
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

TASK = Path(__file__).resolve().with_name('ctpprep.sbatch')
JOB = 'ctpprep-'  # begins the names of our jobs; the folder of the submission follows
STATES = ('succeeded', 'nothing', 'failed', 'stopped', 'running', 'waiting', 'not submitted')
SETTLED = ('succeeded', 'nothing')  # not to be submitted again
# what SLURM writes into the log of a task, and what it means
ENDS = (
    ('memory limit', 'memory ran out: submit again with a larger --mem'),
    ('oom-kill', 'memory ran out: submit again with a larger --mem'),
    ('oom_kill', 'memory ran out: submit again with a larger --mem'),
    ('DUE TO TIME LIMIT', 'time limit: submit again with a longer --time'),
    ('DUE TO NODE FAILURE', 'the node failed'),
    ('DUE TO PREEMPTION', 'preempted by another job'),
    ('CANCELLED AT', 'cancelled'),
)

Task = collections.namedtuple('Task', 'name index log')
Row = collections.namedtuple('Row', 'participant state cause log')


# -- what is there


def list_participants(bids_dir):
    """List the labels of a dataset: its folders, limited to participants.tsv if there is one.

    Parameters
    ----------
    bids_dir : Path

    Returns
    -------
    list of str
        Labels without 'sub-'.
    """
    folders = sorted(folder.name[4:] for folder in bids_dir.glob('sub-*') if folder.is_dir())
    table = bids_dir / 'participants.tsv'
    if not table.exists():
        return folders
    with table.open(newline='', encoding='utf-8-sig') as stream:
        rows = [row.get('participant_id') or '' for row in csv.DictReader(stream, delimiter='\t')]
    listed = list(collections.OrderedDict.fromkeys(
        row[4:] if row.startswith('sub-') else row for row in rows if row
    ))  # fmt: skip
    for what, names in (
        ('in participants.tsv without a folder', sorted(set(listed) - set(folders))),
        ('with a folder but not in participants.tsv', sorted(set(folders) - set(listed))),
    ):
        if names:
            print('skipped, {}: {}'.format(what, ', '.join(names)), file=sys.stderr)
    return [label for label in listed if label in set(folders)]


def read_submissions(out_dir):
    """Read which task had each participant last.

    Parameters
    ----------
    out_dir : Path

    Returns
    -------
    dict of str to Task
        By label.
    """
    tasks = {}
    for path in sorted(out_dir.glob('logs/slurm/*/participants.txt')):
        labels = path.read_text().split()
        per_task = int((path.parent / 'per_task').read_text())
        for place, label in enumerate(labels):
            index = place // per_task + 1
            tasks[label] = Task(path.parent.name, index, path.parent / f'{index}.log')
    return tasks


def read_queue():
    """Ask SLURM for our tasks; one that is ending is listed as running.

    Returns
    -------
    dict of (str, int) to str, or None
        'running' or 'waiting' by submission and index; None where SLURM does not answer.
    """
    if not shutil.which('squeue'):
        return None
    command = ['squeue', '--noheader', '--array', '--user', getpass.getuser(), '--format=%j|%K|%T']
    queue = {}
    try:
        reply = call(command)
    except Failed as failed:
        print(f'the queue is not known: {failed}', file=sys.stderr)
        return None
    for line in reply.splitlines():
        name, index, state = line.strip().rsplit('|', 2)
        if name.startswith(JOB) and index.isdigit():
            waits = state in ('PENDING', 'REQUEUED', 'REQUEUE_HOLD', 'SPECIAL_EXIT')
            queue[name[len(JOB) :], int(index)] = 'waiting' if waits else 'running'
    return queue


def read_status(out_dir, label):
    """Read what ctpprep wrote of a participant: state, cause, and log; None if it wrote nothing."""
    path = out_dir / 'logs' / f'sub-{label}_status.json'
    try:
        status = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    causes = [
        '{}: {}'.format(entry['Series'], entry['Cause'])
        for entry in status['Series']
        if entry.get('Cause')
    ]
    log = out_dir / 'logs' / 'run-{}.log'.format(status['Run'])
    return status['State'], '; '.join(causes), log if log.exists() else ''


def why_stopped(log):
    """Describe why a task ended before ctpprep did, by the end of its log."""
    if not log.exists():
        return 'its task never began: cancelled?'
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    text = '\n'.join(lines[-50:])
    for sign, meaning in ENDS:
        if sign in text:
            return meaning
    return lines[-1] if lines else 'killed without a word'


def look(bids_dir, out_dir):
    """Describe the state of each participant.

    Parameters
    ----------
    bids_dir, out_dir : Path

    Returns
    -------
    list of Row
    """
    queue, tasks, rows = read_queue(), read_submissions(out_dir), []
    for label in list_participants(bids_dir):
        task, status = tasks.get(label), read_status(out_dir, label)
        log = task.log if task else ''
        state, cause = 'not submitted', ''
        if task and queue and (task.name, task.index) in queue:
            state = queue[task.name, task.index]
        elif status and status[0] != 'running':
            state, cause = status[:2]
            log = status[2] or log
        elif task:
            state, cause = 'stopped', why_stopped(task.log)
        elif status:  # started by other means, in a queue that is unknown here
            state, cause, log = 'stopped', 'ended before its end, unless it still runs', status[2]
        rows.append(Row('sub-' + label, state, cause, str(log)))
    return rows


# -- commands


def status(args):
    """Print a table of participants, and how many there are of each state."""
    rows = look(args.bids_dir, args.out_dir)
    if args.tsv:
        print('\t'.join(Row._fields))
        for row in rows:
            print('\t'.join(row))
        return 0 if all(row.state in SETTLED for row in rows) else 1
    shown = [row for row in rows if args.all or row.state != 'succeeded']
    widths = [max(len(row[i]) for row in shown) if shown else 0 for i in (0, 1)]
    for row in shown:
        print('{:{}}  {:{}}  {}'.format(row[0], widths[0], row[1], widths[1], row.cause).rstrip())
        if row.log and row.state != 'waiting':
            print('{:{}}  {}'.format('', widths[0], row.log))
    counts = collections.Counter(row.state for row in rows)
    parts = [f'{counts[state]} {state}' for state in STATES if counts[state]]
    print('{} participants: {}'.format(len(rows), ', '.join(parts)))
    if counts['failed'] or counts['stopped']:
        print('run these again: submit --rerun')
    return 0 if all(row.state in SETTLED for row in rows) else 1


def choose(args):
    """List the labels to submit: new ones; with --rerun also those that failed or were stopped."""
    wanted = {'not submitted', 'failed', 'stopped'} if args.rerun else {'not submitted'}
    rows = look(args.bids_dir, args.out_dir)
    if args.participant_label:
        asked = ['sub-' + label.replace('sub-', '', 1) for label in args.participant_label]
        unknown = sorted(set(asked) - {row.participant for row in rows})
        if unknown:
            sys.exit('not in {}: {}'.format(args.bids_dir, ', '.join(unknown)))
        rows = [row for row in rows if row.participant in asked]
    return [row.participant[4:] for row in rows if row.state in wanted]


def list_labels(args):
    """Print the labels that submit would take."""
    for label in choose(args):
        print(label)
    return 0


def submit(args):
    """Submit participants in array jobs that SLURM accepts, and one job that sums up."""
    labels = choose(args)
    if not labels:
        print(
            'nothing to submit'
            + ('' if args.rerun else '; --rerun adds failed and stopped participants')
        )
        return 0
    environment = dict(os.environ, CTPPREP_PER_TASK=str(args.per_task))
    for name, value in (('CTPPREP', args.command), ('CTPPREP_SCRATCH', args.scratch)):
        if value:
            environment[name] = value
    size = (max_array_size() - 1) * args.per_task
    chunks = [labels[start : start + size] for start in range(0, len(labels), size)]
    stamp = '{}_{}'.format(time.strftime('%Y%m%d-%H%M%S'), uuid.uuid4().hex[:8])
    jobs, submitted = [], 0
    for number, chunk in enumerate(chunks, 1):
        folder = args.out_dir / 'logs' / 'slurm' / f'{stamp}_{number:03d}'
        command = array_command(args, folder, -(-len(chunk) // args.per_task), jobs)
        if args.dry_run:
            print(' '.join(shlex.quote(word) for word in command))
            continue
        folder.mkdir(parents=True)
        (folder / 'per_task').write_text(f'{args.per_task}\n')
        (folder / 'participants.txt').write_text('\n'.join(chunk) + '\n')
        try:
            jobs.append(call(command, environment).strip().partition(';')[0])
        except Failed as failed:
            shutil.rmtree(str(folder))
            print(failed, file=sys.stderr)
            break
        submitted += len(chunk)
        print(f'job {jobs[-1]}: {len(chunk)} participants, logs in {folder}')
    if jobs:
        sum_up(args, jobs)
    if submitted < len(labels) and not args.dry_run:
        left = len(labels) - submitted
        print(f'{left} not submitted; submit again when other jobs have ended', file=sys.stderr)
        return 1
    return 0


def array_command(args, folder, n_tasks, before):
    """Write the call of sbatch for one array job."""
    limit = f'%{args.throttle}' if args.throttle else ''
    command = [
        'sbatch', '--parsable', f'--array=1-{n_tasks}{limit}',
        f'--job-name={JOB}{folder.name}', f'--output={folder}/%a.log',
        '--nodes=1', '--ntasks=1', f'--cpus-per-task={args.cpus_per_task}',
        f'--mem={args.mem}', f'--time={args.time}',
    ]  # fmt: skip
    if args.throttle and before:  # SLURM counts in each array by itself
        command.append(f'--dependency=afterany:{before[-1]}')
    files = [folder / 'participants.txt', args.bids_dir, args.out_dir]
    own = [str(path) for path in (TASK, *files)]
    return command + shlex.split(args.sbatch_args) + own + args.options


def sum_up(args, jobs):
    """Submit a job that writes the table of participants when all others are through."""
    script = ' '.join(shlex.quote(str(word)) for word in (
        'python3', Path(__file__).resolve(), 'status', args.bids_dir, args.out_dir, '--tsv',
    ))  # fmt: skip
    table = shlex.quote(str(args.out_dir / 'logs' / 'slurm' / 'summary.tsv'))
    command = [
        'sbatch', '--parsable', f'--job-name={JOB}summary', '--mem=500M', '--time=0:30:00',
        '--dependency=afterany:' + ':'.join(jobs), '--output=/dev/null',
        *shlex.split(args.sbatch_args), f'--wrap={script} > {table}',
    ]  # fmt: skip
    try:
        call(command)
    except Failed as failed:
        print(f'no summary at the end: {failed}', file=sys.stderr)


def max_array_size():
    """Ask SLURM below which index arrays must stay; its default if SLURM does not answer."""
    try:
        reply = call(['scontrol', 'show', 'config'])
    except Failed as failed:
        print(f'the largest array is taken to be 1001: {failed}', file=sys.stderr)
        return 1001
    for line in reply.splitlines():
        if line.startswith('MaxArraySize'):
            return max(2, int(line.split('=')[1]))
    return 1001


class Failed(Exception):
    """A command of SLURM failed."""


def call(command, environment=None):
    """Run a command of SLURM and give what it printed."""
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True,
        )  # fmt: skip
    except OSError as error:
        raise Failed(f'{command[0]}: {error.strerror}') from error
    if done.returncode:
        raise Failed(f'{command[0]} failed: {done.stderr.strip()}')
    return done.stdout


def copy(args):
    """Copy this script and its task into a folder, for login nodes without ctpprep."""
    args.folder.mkdir(parents=True, exist_ok=True)
    for source in (Path(__file__).resolve(), TASK):
        print(shutil.copy(str(source), str(args.folder)))
    return 0


def main(argv=None):
    """Run the command line; return the exit code."""
    argv, options = sys.argv[1:] if argv is None else argv, []
    if '--' in argv:
        argv, options = argv[: argv.index('--')], argv[argv.index('--') + 1 :]
    parser = argparse.ArgumentParser(
        prog='ctpprep-cluster',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest='action', metavar='submit|status|list|copy')
    subparsers.required = True
    actions = {}
    for name, function in (('submit', submit), ('status', status), ('list', list_labels)):
        actions[name] = subparsers.add_parser(name, help=function.__doc__)
        actions[name].set_defaults(function=function)
        actions[name].add_argument('bids_dir', type=lambda text: Path(text).absolute())
        actions[name].add_argument('out_dir', type=lambda text: Path(text).absolute())
    actions['copy'] = subparsers.add_parser('copy', help=copy.__doc__)
    actions['copy'].set_defaults(function=copy, bids_dir=Path())
    actions['copy'].add_argument('folder', type=Path, metavar='DIR')
    for name in ('submit', 'list'):
        add = actions[name].add_argument
        add('--rerun', action='store_true', help='also those that failed or stopped')
        add('--participant-label', nargs='+', metavar='LABEL', help='only these')
    add = actions['status'].add_argument
    add('--all', action='store_true', help='show also those that succeeded')
    add('--tsv', action='store_true', help='show all, as tab-separated values')
    add = actions['submit'].add_argument
    add('--command', help='words that start ctpprep (default: the variable CTPPREP, or ctpprep)')
    add('--scratch', metavar='DIR', help='folder on a disk of each node, for work folders')
    add('--per-task', type=int, default=1, metavar='N', help='participants per task (default: 1)')
    add(
        '--throttle',
        type=int,
        metavar='N',
        help='simultaneous tasks (default: as many as SLURM allows)',
    )
    add('--cpus-per-task', type=int, default=2, metavar='N', help='cores of a task (default: 2)')
    add('--mem', default='3G', help='memory of a task (default: 3G)')
    add('--time', default='0:30:00', help='time limit of a task (default: 0:30:00)')
    add(
        '--sbatch-args',
        default='',
        metavar='"..."',
        help='more options of sbatch, such as "-p short"',
    )
    add('--dry-run', action='store_true', help='only print the sbatch calls')
    args = parser.parse_args(argv)
    args.options = options
    if options and args.action != 'submit':
        parser.error('options of ctpprep (after --) belong to submit')
    if not args.bids_dir.is_dir():
        parser.error(f'the dataset {args.bids_dir} is not a folder')
    try:
        return args.function(args)
    except Failed as failed:
        sys.exit(f'ctpprep_cluster: {failed}')


if __name__ == '__main__':
    sys.exit(main())
