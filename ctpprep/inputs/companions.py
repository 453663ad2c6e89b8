# SPDX-License-Identifier: Apache-2.0
"""Find the masks and the reference image that belong to a set of precomputed maps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctpprep.inputs.precomputed import FOLDERS
from ctpprep.inputs.series import InputFile, PrecomputedMaps
from ctpprep.io.bids import NIFTI, bids_uri, read_sidecar

MASKS = {'brain_mask': 'desc-brain_mask', 'tissue_mask': 'desc-tissue_mask'}
# images whose mirror image can be registered, in order of preference; ctpprep writes them as well
REFERENCES = {'ctpref': ('desc-hmc_ctpref', 'ctpref'), 'ncct': ('desc-baseline_ctpref', 'ncct')}
# folders of the raw data beside a folder `derivatives`, as in ISLES'24
RAW_FOLDERS = ('raw_data', 'rawdata')


def raw_beside(bids_dir: Path) -> Path | None:
    """Return the folder of raw data beside a folder 'derivatives', as in ISLES'24."""
    if bids_dir.name != 'derivatives':
        return None
    folders = (bids_dir.parent / name for name in RAW_FOLDERS)
    return next((folder for folder in folders if folder.is_dir()), None)


def add_companions(maps: PrecomputedMaps, roots: Sequence[tuple[str, Path]]) -> PrecomputedMaps:
    """Add the masks and the reference image that belong to a set of maps.

    Parameters
    ----------
    maps : PrecomputedMaps
        Its masks are kept.
    roots : sequence of (str, Path)
        Datasets by their names in BIDS URIs; the first one with a file is used.

    Returns
    -------
    PrecomputedMaps
    """
    masks = {}
    for name, ending in MASKS.items():
        if file := _find_first(maps, (ending,), roots):
            masks[name] = file
    for kind, endings in REFERENCES.items():
        if maps.reference is None and (file := _find_first(maps, endings, roots)):
            maps = replace(maps, reference=file, reference_kind=kind)
    return replace(maps, masks=masks | maps.masks)


def _find_first(
    maps: PrecomputedMaps, endings: Sequence[str], roots: Sequence[tuple[str, Path]]
) -> InputFile | None:
    files = (_find(maps, ending, *root) for root in roots for ending in endings)
    return next((file for file in files if file is not None), None)


def _find(maps: PrecomputedMaps, ending: str, name: str, root: Path) -> InputFile | None:
    """Find a file in the space of some maps, named after the maps or, an NCCT, their session."""
    subfolder = Path(maps.out_subdir).parent
    folders = [root / subfolder / folder for folder in (*FOLDERS, '')]
    stems = [f'{maps.prefix}_space-{maps.space}'] if maps.space else []
    if maps.space in ('', ending) or ending in MASKS.values():
        # `space-ncct` is the space of the NCCT itself; masks are resampled by their affine
        stems.append(maps.prefix)
    if ending == 'ncct':
        session = f'sub-{maps.participant}' + (f'_ses-{maps.session}' if maps.session else '')
        space = f'_space-{maps.space}' if maps.space else ''
        stems += [f'{session}{space}', *([session] if maps.space in ('', 'ncct') else [])]
    for stem in dict.fromkeys(stems):
        for folder in folders:
            for extension in NIFTI:
                path = folder / f'{stem}_{ending}{extension}'
                if (path.exists() or path.is_symlink()) and _may_be_ct(path):
                    return InputFile(path, bids_uri(name, path.relative_to(root)))
    return None


def _may_be_ct(path: Path) -> bool:
    """Return whether an image may be a CT; a scaled map that replaces one has no Units HU."""
    if not path.name.partition('.')[0].endswith('_desc-baseline_ctpref'):
        return True
    sidecars = {path.parent: sorted(path.parent.glob('*.json'))}
    return read_sidecar(path, sidecars).get('Units') == 'HU'
