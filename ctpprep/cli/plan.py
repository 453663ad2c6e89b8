# SPDX-License-Identifier: Apache-2.0
"""The dry run: a tree of the nodes, with the files that each would read and write."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctpprep.cli.drawings import read_all_steps
from ctpprep.settings import MethodSettings, RunSettings

if TYPE_CHECKING:
    from ctpprep.engine.steps import Step

logger = logging.getLogger('ctpprep')


def log_plan(all_series: Sequence[Any], method: MethodSettings, run: RunSettings) -> int:
    """Log what a run would do, without doing it.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
    method : MethodSettings
    run : RunSettings

    Returns
    -------
    int
        Exit code: 1 if a series cannot be processed.
    """
    usable = [series for series in all_series if series.can_run]
    steps_of = read_all_steps(usable, method, run)
    for series in all_series:
        if not series.can_run:
            logger.info('%s  cannot be processed', series.prefix)
        else:
            logger.info('\n'.join([series.prefix, *format_tree(steps_of[series.prefix])]))
    logger.info(
        'Dry run: nothing was run or written. Outputs would be written to %s, intermediate files to %s.',
        run.output_dir, run.work_dir,
    )  # fmt: skip
    return 0 if len(usable) == len(all_series) else 1


def format_tree(steps: dict[str, 'Step']) -> list[str]:
    """Format stages, their nodes, and what each node reads and writes.

    Parameters
    ----------
    steps : dict of str to Step
        From `read_steps`.

    Returns
    -------
    list of str
        Lines. An intermediate result is given by its name, a written file by its path in the output folder.
    """
    stages: dict[str, list[Step]] = {}
    for step in steps.values():
        stages.setdefault(step.stage, []).append(step)
    lines = []
    for stage, members in stages.items():
        is_last_stage = stage == list(stages)[-1]
        lines.append(f'{"└── " if is_last_stage else "├── "}{stage}')
        bar = '    ' if is_last_stage else '│   '
        for step in members:
            is_last = step is members[-1]
            lines.append(f'{bar}{"└── " if is_last else "├── "}{step.node} ({step.interface})')
            indent = bar + ('    ' if is_last else '│   ') + '  '
            lines += [f'{indent}reads   {port}: {uri}' for port, uri in step.files.items()]
            makers: dict[str, list[str]] = {}
            for port, (maker, _) in step.inputs.items():
                makers.setdefault(maker, []).append(port)
            lines += [
                f'{indent}reads   {", ".join(ports)} from {maker}'
                for maker, ports in makers.items()
            ]
            if step.written:
                lines += [f'{indent}writes  {path}' for path in step.written]
            else:
                lines.append(f'{indent}passes on {", ".join(step.outputs)}')
    return lines
