# SPDX-License-Identifier: Apache-2.0
"""The dry run: a line per series; with -v a tree of its nodes, and the files that each reads and writes."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctpprep.cli.drawings import build_workflows, read_all_steps
from ctpprep.inputs.series import Series
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
    detailed = run.verbosity > 0
    # building a graph takes half a second, and series of the same kind have the same
    kinds = {_kind(series): series for series in reversed(usable)}
    shown = usable if detailed else list(kinds.values())
    steps_of = read_all_steps(shown, build_workflows(shown, method, run))
    for series in all_series:
        if not series.can_run:
            logger.info('%s  cannot be processed', series.prefix)
        elif detailed:
            logger.info('\n'.join([series.prefix, *format_tree(steps_of[series.prefix])]))
        else:
            logger.info('%s  %s', series.prefix, describe_series(series))
    logger.info(
        'Dry run: nothing was run or written. %d of %d series can be processed. Outputs would be written '
        'to %s, intermediate files to %s.%s',
        len(usable), len(all_series), run.output_dir, run.work_dir,
        '' if detailed else ' -v lists the steps of each series and their files.',
    )  # fmt: skip
    return 0 if len(usable) == len(all_series) else 1


def describe_series(series: Series) -> str:
    """Describe what would be processed, in one line.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps

    Returns
    -------
    str
        Such as '45 frames in 66 s (RepetitionTime), 512 x 512 x 20 voxels of 0.43 x 0.43 x 5 mm'.
    """
    if not series.has_frames:
        return f'maps: {", ".join(series.files)}'
    times = series.frame_times
    shape = ' x '.join(str(length) for length in series.shape)
    size = ' x '.join(f'{length:.3g}' for length in series.voxel_size_mm)
    supplied = [name for name in series.files if name != 'ctp']
    return (
        f'{len(times)} frames in {times[-1] - times[0]:.3g} s ({series.timing_source}), {shape} voxels of '
        f'{size} mm{", with " + ", ".join(supplied) if supplied else ""}'
    )


def _kind(series: Series) -> tuple[Any, ...]:
    """Return what the graph of a series depends on: which files there are."""
    return type(series), *sorted(series.files), *sorted(series.overrides), series.reference_kind


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
