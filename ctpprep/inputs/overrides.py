# SPDX-License-Identifier: Apache-2.0
"""Files of the user that replace a step or exclude tissue: masks, corrected series, AIF.

They come from options for one series (``--brain-mask``, ``--exclude-mask``, ``--aif-file``) or, for
any number of series, from derivatives datasets (``-d NAME=PATH``) with files named as in `PIECES`.
This module checks headers and tables only; the step that reads a mask or an AIF checks its content.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctpprep.exceptions import SeriesError, UsageError, explain
from ctpprep.inputs.companions import MASKS, REFERENCES, add_companions, raw_beside
from ctpprep.inputs.followup import (
    DERIVATIVES,
    ENDINGS,
    add_lesion,
    lesion_datasets,
    lesion_roots,
)
from ctpprep.inputs.series import (
    CTPSeries,
    FailedSeries,
    FoundSeries,
    InputFile,
    PrecomputedMaps,
    Series,
)
from ctpprep.inputs.timing import read_command_times, read_series_timing
from ctpprep.io.bids import bids_uri, read_links
from ctpprep.io.curves import read_curves
from ctpprep.io.files import read_object
from ctpprep.io.headers import check_volume
from ctpprep.settings import RunSettings

logger = logging.getLogger(__name__)

# files that a derivatives dataset may contain for a series, and how their names end
PIECES = {
    'brain_mask': 'desc-brain_mask.nii.gz',
    'exclude_mask': 'desc-exclude_mask.nii.gz',
    'ctp_corrected': 'desc-preproc_ctp.nii.gz',
    'curves': 'desc-vascular_timeseries.tsv',
    'aif_mask': 'label-AIF_mask.nii.gz',
}
# names of the pieces in texts
WORDS = {
    'brain_mask': 'the brain mask',
    'exclude_mask': 'the mask of excluded tissue',
    'ctp_corrected': 'the motion-corrected series',
    'curves': 'the arterial input function',
    'aif_mask': 'the voxels of the arterial input function',
}
AIF = ('curves', 'aif_mask')
# files that a derivatives dataset may contain for precomputed maps
MAP_PIECES = tuple(
    f'{ending}.nii.gz'
    for ending in (*MASKS.values(), *(name for names in REFERENCES.values() for name in names))
)
RAW_NAME = 'rawdata'  # in BIDS URIs, of the raw data beside a folder `derivatives`


def apply_overrides(all_series: Sequence[FoundSeries], run: RunSettings) -> list[FoundSeries]:
    """Add to each series the files that the user supplies for it.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
        As `find_series` returns them.
    run : RunSettings

    Returns
    -------
    list of CTPSeries, PrecomputedMaps and FailedSeries
        In the same order; a series whose supplied file cannot be used has failed.

    Raises
    ------
    UsageError
        When an option is wrong: a file or folder that does not exist, an option for one series
        although several are selected, a dataset without any usable file.
    """
    roots = _check_options(all_series, run)
    supplied = {
        piece: InputFile(path, _uri(path, _link_name(option, all_series), roots))
        for piece, option, path in _options(run)
    }
    results: list[FoundSeries] = []
    used: set[str] = set()
    for series in all_series:
        if not series.can_run:
            results.append(series)
            continue
        try:
            series = _add_files(series, supplied, run)
            series = add_lesion(_check_files(series, run), supplied.get('lesion_mask'), run)
            used |= _datasets_used(series)
            results.append(series)
        except UsageError:
            raise
        except Exception as error:  # also of libraries, for what no check foresees
            reason = explain(error)
            results.append(FailedSeries(series.prefix, series.participant, series.session, reason))
    _check_datasets(all_series, used, run)
    return results


def dataset_links(run: RunSettings, all_series: Sequence[FoundSeries] = ()) -> dict[str, Path]:
    """List the folders that the BIDS URIs of supplied files refer to.

    Parameters
    ----------
    run : RunSettings
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
        With the supplied files, which show whether the raw data beside the maps were read.

    Returns
    -------
    dict of str to Path
    """
    links = dict(run.derivatives)
    for _, option, path in _options(run):
        if _dataset_of(path, {'raw': run.bids_dir, **links}) is None:
            links[_link_name(option, all_series)] = path.parent
    if any(RAW_NAME in _datasets_used(series) for series in all_series if series.can_run):
        links.update(_raw_beside(run))
    if DERIVATIVES in lesion_datasets(all_series):
        links.setdefault(DERIVATIVES, dict(lesion_roots(run))[DERIVATIVES])
    return links


def describe_overrides(series: CTPSeries) -> str:
    """Write one sentence on the files that the user supplied for a series; '' if there are none.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> file = InputFile(Path('/x/sub-01_desc-brain_mask.nii.gz'), 'bids:manual:mask.nii.gz')
    >>> describe_overrides(SimpleNamespace(overrides={'brain_mask': file}))
    'Not made by ctpprep but supplied: the brain mask (bids:manual:mask.nii.gz).'
    """
    files = [f'{WORDS[piece]} ({file.uri})' for piece, file in series.overrides.items()]
    return f'Not made by ctpprep but supplied: {", ".join(files)}.' if files else ''


# -- options


def _options(run: RunSettings) -> list[tuple[str, str, Path]]:
    """List piece, option and path of the files for one series."""
    options = []
    if run.brain_mask is not None:
        options.append(('brain_mask', 'brain-mask', run.brain_mask))
    if run.exclude_mask is not None:
        options.append(('exclude_mask', 'exclude-mask', run.exclude_mask))
    if run.aif_file is not None:
        is_image = run.aif_file.name.endswith(('.nii', '.nii.gz'))
        options.append(('aif_mask' if is_image else 'curves', 'aif-file', run.aif_file))
    if run.lesion_mask is not None:
        options.append(('lesion_mask', 'lesion-mask', run.lesion_mask))
    return options


def _check_options(all_series: Sequence[FoundSeries], run: RunSettings) -> dict[str, Path]:
    """Raise `UsageError` for a wrong option; return the folders of the BIDS URIs by name."""
    names, linked = [name for name, _ in run.derivatives], read_links(run.output_dir)
    for name, root in run.derivatives:
        option = f'--derivatives {name}={root}'
        if names.count(name) > 1:
            raise UsageError(
                f'--derivatives uses the name {name} twice; give each dataset its own'
            )
        if not root.is_dir():
            raise UsageError(f'{option}: {root} is not a folder')
        if root.resolve() == run.output_dir.resolve():
            raise UsageError(
                f'{option}: {root} is also output_dir, where this run would replace the files; '
                'choose another output_dir'
            )
        known = run.output_dir / linked[name] if name in linked else root
        if known.is_dir() and not known.samefile(root):
            raise UsageError(
                f'{option}: in output_dir, the name {name} already refers to {linked[name]}; '
                'choose another name'
            )
    for _, option, path in _options(run):
        if not path.is_file():
            raise UsageError(f'--{option}: {path} is not a file')
        if path.resolve().is_relative_to(run.output_dir.resolve()):
            raise UsageError(
                f'--{option}: {path} is in output_dir, where this run may replace it; move it to '
                'another folder'
            )
        if len(all_series) > 1:
            shown = ', '.join(series.prefix for series in all_series[:4])
            raise UsageError(
                f'--{option} needs a single series, but {len(all_series)} are selected ({shown}'
                f'{", ..." if len(all_series) > 4 else ""}); select one with --participant-label and '
                '--session-label, or use a dataset with --derivatives'
            )
    return {'raw': run.bids_dir, **dataset_links(run, all_series)}


def _check_datasets(all_series: Sequence[FoundSeries], used: set[str], run: RunSettings) -> None:
    """Raise `UsageError` if a derivatives dataset has no file that any series could use."""
    if not any(series.can_run for series in all_series):
        return
    endings: dict[str, None] = {}
    if any(series.has_frames for series in all_series):
        endings |= dict.fromkeys(PIECES.values())
    if any(series.can_run and not series.has_frames for series in all_series):
        endings |= dict.fromkeys(MAP_PIECES)
    endings |= dict.fromkeys(ENDINGS)
    for name, root in run.derivatives:
        if name in used:
            continue
        # a dataset may contain files of other participants only
        if any(next(root.glob(f'sub-*/**/*_{ending}'), None) for ending in endings):
            logger.info('%s has no files for the selected series', name)
        else:
            patterns = ', '.join(f'*_{ending}' for ending in endings)
            raise UsageError(
                f'--derivatives {name}={root} has no file that ctpprep can use; it needs {patterns} '
                'in sub-<label>/[ses-<label>/] or its folder ct'
            )


def _datasets_used(series: Series) -> set[str]:
    """List the names of the datasets that the supplied files of a series come from."""
    return {file.uri.split(':')[1] for file in series.overrides.values()} | lesion_datasets(
        [series]
    )


def _link_name(option: str, all_series: Sequence[FoundSeries]) -> str:
    """Name the folder of an option's file, uniquely for its series."""
    prefix = all_series[0].prefix if all_series else ''
    return re.sub('[^A-Za-z0-9]', '', option + prefix)


def _dataset_of(path: Path, roots: dict[str, Path]) -> str | None:
    """Return the name of the dataset that contains a file."""
    for name, root in roots.items():
        if path.resolve().is_relative_to(root.resolve()):
            return name
    return None


def _uri(path: Path, option: str, roots: dict[str, Path]) -> str:
    name = _dataset_of(path, roots) or option
    return bids_uri(name, path.resolve().relative_to(roots[name].resolve()))


# -- files of one series


def _add_files(series: Series, supplied: dict[str, InputFile], run: RunSettings) -> Series:
    """Add to a series the files from options and datasets."""
    supplied = {piece: file for piece, file in supplied.items() if piece != 'lesion_mask'}
    if series.has_frames:
        return replace(series, overrides=_choose(supplied, _find_pieces(series, run)))
    if 'brain_mask' in supplied:
        series = replace(series, masks={'brain_mask': supplied['brain_mask']})
    if others := supplied.keys() - {'brain_mask'}:
        option = '--exclude-mask' if 'exclude_mask' in others else '--aif-file'
        raise SeriesError(
            f'{series.prefix}: {option} needs a CT perfusion series, but only precomputed maps '
            'were found; remove the option'
        )
    roots = [*run.derivatives, ('raw', run.bids_dir), *_raw_beside(run)]
    return add_companions(series, roots)


def _check_files(series: Series, run: RunSettings) -> Series:
    """Check the headers and tables of the supplied files."""
    return _check_pieces(series, run) if series.has_frames else _check_companions(series)


def _find_pieces(series: CTPSeries, run: RunSettings) -> dict[str, InputFile]:
    """Find the pieces of a series, each in the first dataset that has one."""
    subfolder = Path(series.out_subdir).parent
    pieces: dict[str, InputFile] = {}
    for piece, ending in PIECES.items():
        for name, root in run.derivatives:
            candidates = [
                root / folder / f'{series.prefix}_{file_ending}'
                for folder in (subfolder / 'ct', subfolder)
                for file_ending in dict.fromkeys((ending, ending.removesuffix('.gz')))
            ]
            for path in candidates:
                if path.exists() or path.is_symlink():
                    uri = bids_uri(name, path.relative_to(root))
                    pieces.setdefault(piece, InputFile(path, uri))
    return pieces


def _choose(supplied: dict[str, InputFile], pieces: dict[str, InputFile]) -> dict[str, InputFile]:
    """Prefer options to datasets, and the curve of an AIF to its voxels."""
    aif = next((name for files in (supplied, pieces) for name in AIF if name in files), None)
    chosen = pieces | supplied
    return {name: file for name, file in chosen.items() if name not in AIF or name == aif}


def _raw_beside(run: RunSettings) -> list[tuple[str, Path]]:
    """Name the raw data beside the maps, unless a dataset of the user has that name."""
    folder = raw_beside(run.bids_dir)
    taken = RAW_NAME in dict(run.derivatives)
    return [(RAW_NAME, folder)] if folder is not None and not taken else []


def _check_companions(maps: PrecomputedMaps) -> PrecomputedMaps:
    """Check the masks and the reference image of a set of maps."""
    for name, file in maps.masks.items():
        logger.info('%s: using supplied %s: %s', maps.prefix, name.replace('_', ' '), file.uri)
        check_volume(file.path, 'mask', maps.affine_from)
    if maps.reference is not None:
        logger.info('%s: using reference image: %s', maps.prefix, maps.reference.uri)
        check_volume(maps.reference.path, 'image', maps.affine_from)
    return maps


def _check_pieces(series: CTPSeries, run: RunSettings) -> CTPSeries:
    """Check the pieces of a series; a corrected series replaces its times."""
    for piece, file in series.overrides.items():
        word = WORDS[piece].removeprefix('the ')
        logger.info('%s: using supplied %s: %s', series.prefix, word, file.uri)
        if piece == 'curves':
            read_curves(file.path)
        elif piece != 'ctp_corrected':
            check_volume(file.path, 'mask', series.affine_from)
    if (corrected := series.overrides.get('ctp_corrected')) is None:
        return series
    name = corrected.path.name
    try:
        frame_times, sample_times, source = read_series_timing(
            corrected.path,
            _own_sidecar(corrected.path),
            read_command_times(run),
            series.affine_from,
        )
    except SeriesError as error:
        raise type(error)(f'{name}: {error}') from error
    return replace(
        series, frame_times=frame_times, sample_times=sample_times,
        timing_source=f'{source} of {name}',
    )  # fmt: skip


def _own_sidecar(path: Path) -> dict[str, object]:
    """Read the sidecar of a supplied series; derivatives do not inherit metadata."""
    sidecar = path.with_name(path.name.partition('.')[0] + '.json')
    if not sidecar.exists():
        return {}
    return read_object(sidecar, SeriesError, f'the sidecar {sidecar.name}')
