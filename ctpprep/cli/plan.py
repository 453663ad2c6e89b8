# SPDX-License-Identifier: Apache-2.0
"""The dry run: the tree of nodes, with what each would read and write."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctpprep.cli.graphs import graphs_of
from ctpprep.settings import MethodSettings, RunSettings

if TYPE_CHECKING:
    from ctpprep.engine.graph import Step

logger = logging.getLogger('ctpprep')


def show_plan(found: Sequence[Any], method: MethodSettings, run: RunSettings) -> int:
    """Print what a run would do, and do nothing.

    Parameters
    ----------
    found : sequence of CTPSeries, PrecomputedMaps and FailedSeries
    method : MethodSettings
    run : RunSettings

    Returns
    -------
    int
        Exit code: 1 if a series cannot be processed.
    """
    usable = [each for each in found if each.can_run]
    graphs = graphs_of(usable, method, run)
    for each in found:
        if not each.can_run:
            logger.info('%s  cannot be processed', each.prefix)
        else:
            logger.info('\n'.join([each.prefix, *format_tree(graphs[each.prefix])]))
    logger.info(
        'Nothing was run or written. Files would go to %s, what nodes pass on to %s.',
        run.output_dir, run.work_dir,
    )  # fmt: skip
    return 0 if len(usable) == len(found) else 1


def format_tree(steps: dict[str, 'Step']) -> list[str]:
    """Lay out stages, their nodes, and what these read and write.

    Parameters
    ----------
    steps : dict of str to Step
        As `read_graph` returns them.

    Returns
    -------
    list of str
        Lines. What a node passes on stands by its name, a written file by its path below the output
        folder.
    """
    stages: dict[str, list[Any]] = {}
    for step in steps.values():
        stages.setdefault(step.stage, []).append(step)
    lines = []
    for stage, nodes in stages.items():
        last_stage = stage == list(stages)[-1]
        lines.append(f'{"└── " if last_stage else "├── "}{stage}')
        bar = '    ' if last_stage else '│   '
        for node in nodes:
            last = node is nodes[-1]
            name = node.name.partition('.')[2]
            lines.append(f'{bar}{"└── " if last else "├── "}{name} ({node.interface})')
            under = bar + ('    ' if last else '│   ') + '  '
            lines += [f'{under}reads   {port}: {uri}' for port, uri in node.files.items()]
            makers: dict[str, list[str]] = {}
            for port, (maker, _) in node.inputs.items():
                makers.setdefault(maker, []).append(port)
            lines += [f'{under}reads   {", ".join(ports)} from {m}' for m, ports in makers.items()]
            if node.written:
                lines += [f'{under}writes  {path}' for path in node.written]
            else:
                lines.append(f'{under}passes on {", ".join(node.outputs)}')
    return lines
