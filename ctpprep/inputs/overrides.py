# SPDX-License-Identifier: Apache-2.0
"""Files that a user supplies in place of a step: brain mask, corrected series, AIF.

They come from options for one series (``--brain-mask``, ``--aif-file``) or, for any number of
series, from derivatives datasets (``-d NAME=PATH``) that hold files of the names of `PIECES`. What
is checked here needs the header or the table alone; whether a mask lies on the head and an AIF
covers the bolus is checked where they are used.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.inputs.dataset import FailedSeries, InputFile
from ctpprep.inputs.precomputed import (
    MASKS,
    REFERENCES,
    PrecomputedMaps,
    add_companions,
    raw_beside,
)
from ctpprep.inputs.series import CTPSeries, Series
from ctpprep.inputs.timing import read_command_times, read_times_of
from ctpprep.io.bids import bids_uri, read_links
from ctpprep.io.curves import read_curves
from ctpprep.io.files import read_object
from ctpprep.io.headers import check_volume
from ctpprep.settings import RunSettings

logger = logging.getLogger(__name__)

# what a derivatives dataset may hold of a series, and how its name ends
PIECES = {
    'brain_mask': 'desc-brain_mask.nii.gz',
    'ctp_corrected': 'desc-preproc_ctp.nii.gz',
    'curves': 'desc-vascular_timeseries.tsv',
    'aif_mask': 'label-AIF_mask.nii.gz',
}
# what each piece is called in texts
WORDS = {
    'brain_mask': 'the brain mask',
    'ctp_corrected': 'the motion-corrected series',
    'curves': 'the arterial input function',
    'aif_mask': 'the voxels of the arterial input function',
}
AIF = ('curves', 'aif_mask')
# what goes with maps made elsewhere
MAP_PIECES = (*MASKS.values(), *(each for names in REFERENCES.values() for each in names))
RAW_NAME = 'rawdata'  # in BIDS URIs, of the raw data beside a folder `derivatives`


def apply_overrides(
    found: Sequence[Series | FailedSeries], run: RunSettings
) -> list[Series | FailedSeries]:
    """Give each series the files that a user supplied for it.

    Parameters
    ----------
    found : sequence of CTPSeries, PrecomputedMaps and FailedSeries
        As `find_series` returns them.
    run : RunSettings

    Returns
    -------
    list of CTPSeries, PrecomputedMaps and FailedSeries
        In the same order; a series whose supplied file cannot be used has failed.

    Raises
    ------
    UsageError
        When an option is wrong: a file or folder that is not there, an option for one series
        although several are selected, a dataset that holds nothing of use.
    """
    roots = _check_options(found, run)
    given = {
        piece: InputFile(path, _uri(path, _link_name(option, found), roots))
        for piece, option, path in _options(run)
    }
    results: list[Series | FailedSeries] = []
    used = set()
    for series in found:
        if isinstance(series, FailedSeries):
            results.append(series)
            continue
        try:
            if isinstance(series, PrecomputedMaps):
                results.append(maps := _complete(series, given, run))
                used |= {each.uri.split(':')[1] for each in maps.overrides.values()}
                continue
            pieces = _choose(given, _find_pieces(series, run))
            used |= {each.uri.split(':')[1] for each in pieces.values()}
            results.append(_apply(series, pieces, run))
        except SeriesError as error:
            results.append(
                FailedSeries(series.prefix, series.participant, series.session, str(error))
            )
    for name, root in run.derivatives:
        if name in used or all(isinstance(each, FailedSeries) for each in found):
            continue
        wanted = list(PIECES.values()) if any(isinstance(x, CTPSeries) for x in found) else []
        if any(isinstance(each, PrecomputedMaps) for each in found):
            wanted += [f'{each}.nii.gz' for each in MAP_PIECES]
        wanted = list(dict.fromkeys(wanted))
        # a run of some participants may meet a dataset of others
        if any(next(root.glob(f'sub-*/**/*_{each}'), None) for each in wanted):
            logger.info('%s holds nothing for the selected series', name)
        else:
            endings = ', '.join(f'*_{ending}' for ending in wanted)
            raise UsageError(
                f'--derivatives {name}={root} holds nothing that can be supplied; looked for '
                f'{endings} in sub-<label>/[ses-<label>/] and its folder ct'
            )
    return results


def dataset_links(
    run: RunSettings, found: Sequence[Series | FailedSeries] = ()
) -> dict[str, Path]:
    """Name the folders that the BIDS URIs of supplied files point into.

    Parameters
    ----------
    run : RunSettings
    found : sequence of CTPSeries, PrecomputedMaps and FailedSeries
        With what was supplied: whether the raw data beside the maps were read.

    Returns
    -------
    dict of str to Path
    """
    links = dict(run.derivatives)
    for _, option, path in _options(run):
        if _home(path, {'raw': run.bids_dir, **links}) is None:
            links[_link_name(option, found)] = path.parent
    maps = [each for each in found if isinstance(each, PrecomputedMaps)]
    if any(f'bids:{RAW_NAME}:' in f.uri for each in maps for f in each.overrides.values()):
        links.update(_raw_beside(run))
    return links


def describe_overrides(series: CTPSeries) -> str:
    """Say in one sentence what a user supplied for a series; '' if nothing.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> file = InputFile(Path('/x/sub-01_desc-brain_mask.nii.gz'), 'bids:manual:mask.nii.gz')
    >>> describe_overrides(SimpleNamespace(overrides={'brain_mask': file}))
    'Not made by ctpprep but supplied: the brain mask (bids:manual:mask.nii.gz).'
    """
    files = [f'{WORDS[piece]} ({each.uri})' for piece, each in series.overrides.items()]
    return f'Not made by ctpprep but supplied: {", ".join(files)}.' if files else ''


# -- options


def _options(run: RunSettings) -> list[tuple[str, str, Path]]:
    """List piece, option and path of what was given for one series."""
    options = []
    if run.brain_mask is not None:
        options.append(('brain_mask', 'brain-mask', run.brain_mask))
    if run.aif_file is not None:
        image = run.aif_file.name.endswith(('.nii', '.nii.gz'))
        options.append(('aif_mask' if image else 'curves', 'aif-file', run.aif_file))
    return options


def _check_options(found: Sequence[Series | FailedSeries], run: RunSettings) -> dict[str, Path]:
    """Refuse options that cannot be meant; give the folders of the BIDS URIs by name."""
    names, linked = [name for name, _ in run.derivatives], read_links(run.output_dir)
    for name, root in run.derivatives:
        if names.count(name) > 1:
            raise UsageError(f'--derivatives names {name} twice; each dataset needs its own name')
        if not root.is_dir():
            raise UsageError(f'--derivatives {name}={root} is not a folder')
        if root.resolve() == run.output_dir.resolve():
            raise UsageError(
                f'--derivatives {name}={root} is output_dir, whose files this run would replace; '
                'choose another output_dir'
            )
        known = run.output_dir / linked[name] if name in linked else root
        if known.is_dir() and not known.samefile(root):
            raise UsageError(
                f'--derivatives {name}={root}: files in output_dir call {linked[name]} so; choose '
                'another name'
            )
    for _, option, path in _options(run):
        if not path.is_file():
            raise UsageError(f'--{option} {path} is not a file')
        if path.resolve().is_relative_to(run.output_dir.resolve()):
            raise UsageError(
                f'--{option} {path} is in output_dir, where this run may replace it; move it'
            )
        if len(found) > 1:
            shown = ', '.join(each.prefix for each in found[:4])
            raise UsageError(
                f'--{option} is for one series, but {len(found)} are selected ({shown}'
                f'{", ..." if len(found) > 4 else ""}); choose one with --participant-label and '
                '--session-label, or put the files into a dataset for --derivatives'
            )
    return {'raw': run.bids_dir, **dataset_links(run, found)}


def _link_name(option: str, found: Sequence[Series | FailedSeries]) -> str:
    """Name the folder of an option's file; by its series, since others may have theirs elsewhere."""
    prefix = found[0].prefix if found else ''
    return re.sub('[^A-Za-z0-9]', '', option + prefix)


def _home(path: Path, roots: dict[str, Path]) -> str | None:
    """Name the dataset that a file lies in."""
    for name, root in roots.items():
        if path.resolve().is_relative_to(root.resolve()):
            return name
    return None


def _uri(path: Path, option: str, roots: dict[str, Path]) -> str:
    name = _home(path, roots) or option
    return bids_uri(name, path.resolve().relative_to(roots[name].resolve()))


# -- pieces


def _find_pieces(series: CTPSeries, run: RunSettings) -> dict[str, InputFile]:
    """Look for the pieces of a series; the first dataset that has one counts."""
    home = Path(series.out_subdir).parent
    pieces: dict[str, InputFile] = {}
    for piece, ending in PIECES.items():
        for name, root in run.derivatives:
            endings = dict.fromkeys((ending, ending.removesuffix('.gz')))
            candidates = [
                root / folder / f'{series.prefix}_{each}'
                for folder in (home / 'ct', home)
                for each in endings
            ]
            for path in (each for each in candidates if each.exists() or each.is_symlink()):
                uri = bids_uri(name, path.relative_to(root))
                pieces.setdefault(piece, InputFile(path, uri))
    return pieces


def _choose(given: dict[str, InputFile], pieces: dict[str, InputFile]) -> dict[str, InputFile]:
    """Let options go before datasets, and of an AIF's curve and its voxels the curve."""
    aif = next((each for source in (given, pieces) for each in AIF if each in source), None)
    chosen = pieces | given
    return {name: file for name, file in chosen.items() if name not in AIF or name == aif}


def _raw_beside(run: RunSettings) -> list[tuple[str, Path]]:
    """Name the raw data beside the maps, unless a user's dataset has that name."""
    folder = raw_beside(run.bids_dir)
    taken = RAW_NAME in dict(run.derivatives)
    return [(RAW_NAME, folder)] if folder is not None and not taken else []


def _complete(
    maps: PrecomputedMaps, given: dict[str, InputFile], run: RunSettings
) -> PrecomputedMaps:
    """Add to maps the masks and the image of densities that go with them, and check these."""
    if 'brain_mask' in given:
        maps = replace(maps, masks={'brain_mask': given['brain_mask']})
    if given.keys() - {'brain_mask'}:
        raise SeriesError(
            f'{maps.prefix}: --aif-file needs a series, but there are maps made elsewhere only'
        )
    maps = add_companions(maps, [*run.derivatives, ('raw', run.bids_dir), *_raw_beside(run)])
    for name, file in maps.masks.items():
        logger.info('%s: supplied: %s, %s', maps.prefix, name.replace('_', ' '), file.uri)
        check_volume(file.path, 'mask')
    if maps.reference is not None:
        logger.info('%s: reference image: %s', maps.prefix, maps.reference.uri)
        check_volume(maps.reference.path, 'image')
    return maps


def _apply(series: CTPSeries, pieces: dict[str, InputFile], run: RunSettings) -> CTPSeries:
    """Check the pieces of a series and put them in; a corrected series brings its own times."""
    for piece, file in pieces.items():
        logger.info('%s: supplied: %s, %s', series.prefix, WORDS[piece], file.uri)
        if piece == 'curves':
            read_curves(file.path)
        elif piece != 'ctp_corrected':
            check_volume(file.path, 'mask')
    series = replace(series, overrides=pieces)
    if corrected := pieces.get('ctp_corrected'):
        name = corrected.path.name
        try:
            frame_times, sample_times, source = read_times_of(
                corrected.path, _own_sidecar(corrected.path), read_command_times(run)
            )
        except SeriesError as error:
            raise type(error)(f'{name}: {error}') from error
        series = replace(
            series, frame_times=frame_times, sample_times=sample_times,
            timing_source=f'{source} of {name}',
        )  # fmt: skip
    return series


def _own_sidecar(path: Path) -> dict[str, object]:
    """Read the sidecar of a supplied series; derivatives inherit nothing."""
    sidecar = path.with_name(path.name.partition('.')[0] + '.json')
    if not sidecar.exists():
        return {}
    return read_object(sidecar, SeriesError, f'the sidecar {sidecar.name}')
