# SPDX-License-Identifier: Apache-2.0
"""Feed the report: its methods text, and what it tells of the run."""

import dataclasses
import importlib.metadata
import logging
import sys
import typing
from collections.abc import Sequence

from ctpprep import __version__
from ctpprep.settings import MethodSettings, RunSettings

if typing.TYPE_CHECKING:
    from ctpprep.workflows.execution import SeriesResult

logger = logging.getLogger('ctpprep')

# stages that maps made elsewhere do not go through
SERIES_STAGES = ('grid', 'motion', 'vessels', 'denoising', 'deconvolution', 'coregistration')


def write_reports(
    found: Sequence[typing.Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
) -> None:
    """Write the page of every participant, also of one whose series failed."""
    from ctpprep.dataset import FailedSeries
    from ctpprep.ready_maps import ReadyMaps
    from ctpprep.reports import build_report
    from ctpprep.workflows.base import init_series_wf

    failed = {each.prefix: each for each in results if not each.succeeded}
    for label in dict.fromkeys(each.participant for each in found):
        mine = [each for each in found if each.participant == label]
        usable = [each for each in mine if not isinstance(each, FailedSeries)]
        texts = {each.prefix: init_series_wf(each, method, run).visit_desc() for each in usable}
        methods = next(iter(texts.values()), '')
        if len(set(texts.values())) > 1:  # what was supplied differs from series to series
            methods = '\n'.join(f'## {prefix}\n{text}' for prefix, text in texts.items())
        maps_only = bool(usable) and all(isinstance(each, ReadyMaps) for each in usable)
        info = describe_run(method, SERIES_STAGES if maps_only else ()) | {
            'Timing': {
                each.prefix: 'maps made elsewhere'
                if isinstance(each, ReadyMaps)
                else each.timing_source
                for each in usable
            },
            'Supplied': {
                each.prefix: ', '.join(file.uri for file in each.supplied.values()) or 'nothing'
                for each in usable
            },
            'failed': [
                {'prefix': each.prefix, 'reason': failed[each.prefix].cause}
                for each in mine
                if each.prefix in failed
            ],
        }
        logger.info('report: %s', build_report(run.output_dir, label, methods, info))


def describe_run(method: MethodSettings, not_run: tuple[str, ...] = ()) -> dict[str, typing.Any]:
    """Tell software and settings; nothing of the machine, since the record travels."""
    stages = dict.fromkeys(
        each.metadata['about'].stage for each in dataclasses.fields(MethodSettings)
    )
    stages = dict.fromkeys(each for each in stages if each not in not_run)
    packages = ('nipype', 'niworkflows', 'antspyx', 'nibabel', 'numpy', 'scipy', 'pybids')
    return {
        'version': __version__,
        'Software': {'ctpprep': __version__}
        | {'Python': '.'.join(map(str, sys.version_info[:3]))}
        | {name: importlib.metadata.version(name) for name in packages},
        'Settings': {stage: method.stage(stage) for stage in stages},
    }
