# SPDX-License-Identifier: Apache-2.0
"""Find the lesion of a later session, the reference that maps are compared with.

A mask is a file ``*_lesion-msk`` (ISLES'24) or ``*_label-lesion_mask`` or ``*_label-lesion_dseg``
(BIDS, also with ``desc-lesion``). Its name or its grid determines its space. A mask that cannot be
aligned is left out, with the reason, and never fails a series.
"""

import csv
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from ctpprep.exceptions import SeriesError, explain
from ctpprep.inputs.companions import RAW_FOLDERS
from ctpprep.inputs.dataset import read_filters
from ctpprep.inputs.grids import read_grid, same_grid
from ctpprep.inputs.precomputed import TEMPLATES
from ctpprep.inputs.series import CTPSeries, FollowUpLesion, InputFile, Series
from ctpprep.io.bids import NIFTI, bids_uri, entities
from ctpprep.io.headers import check_volume
from ctpprep.io.tables import read_table
from ctpprep.settings import RunSettings

logger = logging.getLogger(__name__)

SUFFIXES = ('lesion-msk', 'lesion-mask')
ENDINGS = (
    'lesion-msk.nii.gz', 'label-lesion_mask.nii.gz', 'desc-lesion_mask.nii.gz',
    'label-lesion_dseg.nii.gz', 'desc-lesion_dseg.nii.gz',
)  # fmt: skip
# images that can be registered instead of a mask, in order of preference
IMAGES = ('dwi', 'trace', 'adc', 'flair')
# labels of the entity `space` by the space they name
NCCT_SPACES, SERIES_SPACES = ('ncct', 'ct'), ('ctp', 'ctpref')
# folder of derivatives beside the raw data, as in ISLES'24, and its name in BIDS URIs
DERIVATIVES = 'derivatives'
NO_TIMES: Mapping[str, datetime] = MappingProxyType({})
# entities of a filter file by their names in pybids
ENTITY_KEYS = {
    'subject': 'sub', 'session': 'ses', 'acquisition': 'acq', 'ceagent': 'ce', 'reconstruction': 'rec',
    'direction': 'dir', 'segmentation': 'seg', 'resolution': 'res', 'hemisphere': 'hemi',
}  # fmt: skip


def lesion_roots(run: RunSettings) -> list[tuple[str, Path]]:
    """List the datasets that may contain follow-up lesions, by their names in BIDS URIs.

    These are the datasets of ``--derivatives``, the raw data, and a folder ``derivatives`` beside a
    folder ``raw_data`` or ``rawdata``.
    """
    roots = [*run.derivatives, ('raw', run.bids_dir)]
    if run.bids_dir.name.lower() in RAW_FOLDERS and DERIVATIVES not in dict(roots):
        parent = run.bids_dir.parent
        try:
            names = sorted(os.listdir(parent))
        except OSError:  # it may be entered but not listed
            names = [DERIVATIVES]
        beside = (parent / name for name in names if name.lower() == DERIVATIVES)
        roots += [(DERIVATIVES, folder) for folder in beside if os.path.isdir(folder)][:1]
    return roots


def add_lesion(series: Series, supplied: InputFile | None, run: RunSettings) -> Series:
    """Add to a series the lesion mask of a later session, if there is one.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    supplied : InputFile, optional
        File of ``--lesion-mask``, which is used whatever its name and session are.
    run : RunSettings

    Returns
    -------
    CTPSeries or PrecomputedMaps

    Raises
    ------
    SeriesError
        When the file of ``--lesion-mask`` cannot be read.
    """
    if supplied is not None:
        check_volume(supplied.path, 'mask', series.affine_from)
        return replace(series, lesion=_place(series, supplied))
    masks = find_masks(series, run)
    if not masks:
        _log_near_miss(series, run)
        return series
    chosen = masks[0]
    for other in masks[1:]:
        logger.info('%s: not used, beside %s: %s', series.prefix, chosen.uri, other.uri)
    try:
        check_volume(chosen.path, 'mask', series.affine_from)
        lesion = _place(series, chosen)
    except Exception as error:  # also of libraries: the perfusion maps do not need the mask
        session = entities(chosen.path).get('ses', '')
        lesion = FollowUpLesion(chosen, session, '', left_out=explain(error))
    if not lesion.left_out and (doubt := _doubt_of_grid(series, lesion)):
        logger.warning('%s: %s: %s', series.prefix, chosen.uri, doubt)
    if lesion.left_out:
        logger.warning(
            '%s: follow-up lesion left out: %s (%s)', series.prefix, lesion.left_out, chosen.uri
        )
    else:
        logger.info('%s: follow-up lesion: %s', series.prefix, chosen.uri)
    return replace(series, lesion=lesion)


def find_masks(series: Series, run: RunSettings) -> list[InputFile]:
    """Find the lesion masks of later sessions.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    run : RunSettings
        With the datasets, and the filter ``lesion`` of ``--bids-filter-file``.

    Returns
    -------
    list of InputFile
        The one to use first: of the earliest later session, in the space of the NCCT, compressed,
        of the first dataset.
    """
    wanted = read_filters(run.bids_filter_file).get('lesion')
    ranked, roots = [], lesion_roots(run)
    times = read_session_times(series.participant, [root for _, root in roots])
    for rank, (name, root) in enumerate(roots):
        for path in _images_below(root / f'sub-{series.participant}'):
            labels = entities(path)
            if not is_lesion(labels) or not is_later(labels.get('ses'), series.session, times):
                continue
            if wanted is not None and not _matches(labels, wanted):
                continue
            in_ncct = labels.get('space', '').lower() in NCCT_SPACES
            # sessions of known time first: those without one cannot be compared with them
            when = times.get(labels['ses'])
            key = (
                when is None,
                when or datetime.min,
                _order(labels['ses']),
                not in_ncct,
                path.suffix.lower() != '.gz',
                rank,
                path.name,
            )
            ranked.append((key, InputFile(path, bids_uri(name, path.relative_to(root)))))
    return [file for _, file in sorted(ranked, key=lambda item: item[0])]


def _log_near_miss(series: Series, run: RunSettings) -> None:
    """Log a lesion mask that is not one of a later session: its name or session may be wrong."""
    for _, root in lesion_roots(run):
        for path in _images_below(root / f'sub-{series.participant}'):
            labels = entities(path)
            name = path.relative_to(root.parent)
            if is_lesion(labels) and run.bids_filter_file is None:
                reason = (
                    f'its session {labels["ses"]} is not later than that of the series'
                    if 'ses' in labels
                    else 'its name has no session'
                )
                logger.info('%s: not a follow-up lesion: %s: %s', series.prefix, name, reason)
                return


def is_lesion(labels: dict[str, str]) -> bool:
    """Return whether a file name is that of a lesion mask.

    Examples
    --------
    >>> is_lesion(entities(Path('sub-1_ses-02_space-ncct_lesion-msk.nii.gz')))
    True
    >>> is_lesion(entities(Path('sub-1_ses-02_LESION_msk.nii.gz')))
    True
    >>> is_lesion(entities(Path('sub-1_ses-02_label-core_mask.nii.gz')))
    False
    """
    suffix, words = labels['suffix'].lower(), {key.lower() for key in labels}
    if suffix in SUFFIXES:
        return True
    lesion = 'lesion' in (labels.get('label', '').lower(), labels.get('desc', '').lower())
    # without a dash, `_lesion_` is an entity without a value
    return (lesion or 'lesion' in words) and suffix in ('mask', 'msk', 'dseg')


def read_session_times(participant: str, roots: Sequence[Path]) -> dict[str, datetime]:
    """Read when the sessions of a participant were acquired, from ``sub-X_sessions.tsv``.

    Parameters
    ----------
    participant : str
    roots : sequence of Path
        Datasets; the first that states the time of a session is used.

    Returns
    -------
    dict
        Times by session label, without ``ses-``; a table or a time that cannot be read is omitted.
    """
    times: dict[str, datetime] = {}
    for root in roots:
        path = root / f'sub-{participant}' / f'sub-{participant}_sessions.tsv'
        try:
            # a named pipe would block for ever
            rows = read_table(path) if path.is_file() else []
        except (OSError, ValueError, csv.Error):
            continue
        for row in rows:
            label = row.get('session_id', '').removeprefix('ses-')
            try:
                time = datetime.fromisoformat(row.get('acq_time', '')).replace(tzinfo=None)
            except ValueError:
                continue
            times.setdefault(label, time)
    return times


def is_later(
    session: str | None, baseline: str | None, times: Mapping[str, datetime] = NO_TIMES
) -> bool:
    """Return whether a session comes after that of a series.

    If the time of either session is unknown, or both are equal, labels are ordered by the numbers in
    them. Any session comes after a series without one.

    Examples
    --------
    >>> is_later('02', '0001'), is_later('10', '2'), is_later('01', '01'), is_later('2', None)
    (True, True, False, True)
    >>> times = {'pre': datetime(2020, 1, 2), 'post': datetime(2020, 1, 3)}
    >>> is_later('post', 'pre', times), is_later('pre', 'post', times)
    (True, False)
    """
    if session is None:
        return False
    if baseline is not None and baseline in times and session in times:
        first, second = times[baseline], times[session]
        if first != second:  # else the table has only days, or the times were removed
            return second > first
    return baseline is None or _order(session) > _order(baseline)


def _order(session: str) -> list[tuple[int, str]]:
    """Sort key of a session label: numbers by their value."""
    parts = re.findall(r'\d+|\D+', session)
    return [(int(part), '') if part.isdigit() else (-1, part) for part in parts]


def _images_below(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (
            path for path in sorted(folder.rglob('*')) if path.name.lower().endswith(NIFTI)
        )


def _matches(labels: dict[str, str], wanted: dict[str, Any]) -> bool:
    """Return whether entities match a filter of `read_filters`."""
    from bids.layout import Query

    for name, query in wanted.items():
        value = labels.get(ENTITY_KEYS.get(name, name))
        allowed = query if isinstance(query, list) else [query]
        if not any(
            (value is None) if option is Query.NONE
            else (value is not None) if option is Query.ANY
            else value is not None and _order(value) == _order(str(option))
            for option in allowed
        ):  # fmt: skip
            return False
    return True


def _place(series: Series, mask: InputFile) -> FollowUpLesion:
    """Determine the space of a mask, and the image that is registered for it."""
    labels = entities(mask.path)
    session, space = labels.get('ses', ''), labels.get('space', '')

    def lesion(space: str, image: InputFile | None = None, left_out: str = '') -> FollowUpLesion:
        return FollowUpLesion(mask, session, space, image, left_out)

    own_space = '' if isinstance(series, CTPSeries) else series.space
    if space.startswith(TEMPLATES):
        return lesion('', left_out=f'it is in the template space {space}')
    if space and (space == own_space or space.lower() in SERIES_SPACES):
        return lesion('series')
    if space.lower() in NCCT_SPACES:
        if isinstance(series, CTPSeries):
            if series.ncct:
                return lesion('ncct')
            # an MR image in the same space is registered instead
            image = _image_beside(mask, series.affine_from)
            missing = (
                'it is in the space of an NCCT, which was not found, and no DWI, ADC or FLAIR '
            )
            missing += 'image lies beside it'
            return lesion('image', image) if image else lesion('', left_out=missing)
        if series.reference_kind == 'ncct':
            return lesion('series')
        return lesion('', left_out='it is in the space of the NCCT, but the maps are not')
    image = _image_beside(mask, series.affine_from)
    on_grid = _space_by_grid(series, mask.path)
    # an image in scanner coordinates may lie beside a mask on the grid of the CT
    if on_grid and not (image and _share_grid(image.path, mask.path, series.affine_from)):
        return lesion(on_grid)
    if image is not None:
        if isinstance(series, CTPSeries) or series.reference_kind:
            return lesion('image', image)
        return lesion('', left_out='the maps have no CT to which its image can be registered')
    return lesion(
        '',
        left_out='no DWI, ADC or FLAIR image lies beside it, and its grid is not that of the NCCT',
    )


def _image_beside(mask: InputFile, affine_from: str) -> InputFile | None:
    """Find the MR image of the session and space of a mask that is most suited to registration."""
    labels = entities(mask.path)
    candidates = []
    for path in sorted(mask.path.parent.iterdir()):
        if not path.name.endswith(NIFTI):
            continue
        own = entities(path)
        kind = own['suffix'].lower()
        same = all(own.get(key) == labels.get(key) for key in ('sub', 'ses', 'space'))
        if kind in IMAGES and same and _is_volume(path, affine_from):
            candidates.append(
                (
                    not _share_grid(path, mask.path, affine_from),
                    IMAGES.index(kind),
                    path.name,
                    path,
                )
            )
    if not candidates:
        return None
    path = min(candidates)[-1]
    folder = mask.uri.removesuffix(quote(mask.path.name, safe='/+'))
    return InputFile(path, folder + quote(path.name, safe='/+'))


def _is_volume(path: Path, affine_from: str) -> bool:
    """Return whether a file is a readable 3D image."""
    try:
        check_volume(path, 'image', affine_from)
    except SeriesError:
        return False
    return True


def _share_grid(first: Path, second: Path, affine_from: str) -> bool:
    try:
        return same_grid(read_grid(first, True, affine_from), read_grid(second, True, affine_from))
    except Exception:  # of libraries: such an image is not on the grid
        return False


def _doubt_of_grid(series: Series, lesion: FollowUpLesion) -> str:
    """Describe a mask of the NCCT that has another grid: only its header states where it is."""
    if lesion.space != 'ncct' or not isinstance(series, CTPSeries) or series.ncct is None:
        return ''
    try:
        own, grid = (
            read_grid(path, True, series.affine_from) for path in (lesion.mask.path, series.ncct)
        )
    except SeriesError:  # such as of an oblique NCCT: what is needed of both is checked elsewhere
        return ''
    if same_grid(own, grid):
        return ''
    sizes = [' x '.join(map(str, shape)) for shape, _ in (own, grid)]
    difference = f'{sizes[0]} voxels, not {sizes[1]}' if own[0] != grid[0] else 'another affine'
    return (
        f'its grid is not that of the NCCT ({difference}), so only its header states where it is'
    )


def _space_by_grid(series: Series, mask: Path) -> str:
    """Return the space of the image on whose grid a mask is; '' if there is none."""
    if isinstance(series, CTPSeries):
        same = series.ncct is not None and _share_grid(series.ncct, mask, series.affine_from)
        return 'ncct' if same else ''
    first = next(iter(series.maps.values())).path
    return 'series' if _share_grid(first, mask, series.affine_from) else ''


def lesion_datasets(all_series: Sequence[Any]) -> set[str]:
    """List the names of the datasets that follow-up lesions come from."""
    return {
        file.uri.split(':')[1]
        for series in all_series
        if series.can_run and series.lesion is not None
        for file in series.lesion.files.values()
    }
