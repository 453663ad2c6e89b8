# SPDX-License-Identifier: Apache-2.0
"""The ``ctpprep-dicom`` command: results of ctpprep as DICOM objects of the study they came from."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.dicom.command import run_command
from ctpprep.dicom.files import group_by_study, open_source
from ctpprep.dicom.findings import Findings, find_loss, read_entry, read_findings
from ctpprep.dicom.objects import MAPS, SEGMENTS, make_map, make_segmentation
from ctpprep.dicom.pictures import make_pdf, make_picture
from ctpprep.dicom.report import make_report
from ctpprep.dicom.send import CALLING_AET, Peer, send_objects
from ctpprep.exceptions import CtpprepError, SeriesError, UsageError, explain
from ctpprep.io.files import absolute, read_object, write_atomically

# state of a participant without series
NONE = 'nothing'
# tags that objects take from the source; they may be empty, but must exist
COPIED = (
    'PatientID', 'PatientName', 'PatientBirthDate', 'PatientSex', 'AccessionNumber', 'StudyID',
    'StudyDate', 'StudyTime', 'ReferringPhysicianName', 'PositionReferenceIndicator',
)  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='ctpprep-dicom',
        description='Write masks (segmentation), maps (parametric maps), volumes (structured report) and the '
        'one-page summary (PDF and picture) of ctpprep as DICOM objects of the study that ctpprep-bids '
        'converted. Research use only.',
        epilog='Exit code: 0 if every series was exported, 1 if one was not, 2 for an invalid command.',
    )
    parser.add_argument('out_dir', metavar='OUT_DIR', type=Path, help='output folder of ctpprep')
    parser.add_argument('dicom_dir', metavar='DICOM_DIR', type=Path, help='folder for the objects')
    parser.add_argument(
        '--source', metavar='DICOM', type=Path, required=True, help='the source of ctpprep-bids'
    )
    parser.add_argument(
        '--links', metavar='FILE', type=Path, required=True,
        help='private file of ctpprep-bids, which names the source of each series',
    )  # fmt: skip
    parser.add_argument(
        '--force',
        action='store_true',
        help='also export results whose quality control failed or is missing, or that are not complete',
    )
    parser.add_argument(
        '--send', nargs=3, metavar=('HOST', 'PORT', 'AET'),
        help='also send the objects to a PACS (C-STORE), and request storage commitment if it offers that',
    )  # fmt: skip
    parser.add_argument(
        '--calling-aet', metavar='AET', default=CALLING_AET,
        help=f'AE title of this side, which some PACS check (default: {CALLING_AET})',
    )  # fmt: skip
    parser.add_argument(
        '--listen', metavar='PORT', type=int,
        help='port on which a PACS answers that confirms storage on a connection of its own',
    )  # fmt: skip
    parser.add_argument('--version', action='version', version=f'ctpprep {__version__}')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0 if every series was exported, 1 if one was not, 2 if the command is invalid.
    """
    return run_command(make_parser(), argv, _run)


def _run(args: argparse.Namespace) -> int:
    out_dir, dicom_dir = absolute(args.out_dir), absolute(args.dicom_dir)
    links = read_object(absolute(args.links), UsageError, f'--links {args.links}')
    peer = make_peer(args)
    try:
        import highdicom  # noqa: F401

        if peer is not None:
            import pynetdicom  # noqa: F401
        files = {key[1]: value for key, value in group_by_study(absolute(args.source)).items()}
    except ModuleNotFoundError as error:
        raise UsageError(
            f'{error.name} is not installed; run: pip install "ctpprep[dicom]"'
        ) from error
    n_failed = n_series = 0
    written: list[Path] = []
    for prefix, folder, study, objects in find_series(links, out_dir):
        n_series += 1
        try:
            why, findings = judge(out_dir, folder, prefix, args.force)
            sources = read_sources(files.get(study, []), objects)
            made = make_objects(folder, prefix, sources, findings, verdict_only=bool(why))
            paths = write_objects(made, dicom_dir / prefix)
            written += paths
            verdict = ', '.join(path.name for path in paths)
            if why:
                verdict = f'FAILED: {why}; its report ({verdict}) contains the verdict alone'
            n_failed += bool(why)
        except Exception as error:  # also of libraries: the other series go on
            n_failed += 1
            verdict = f'FAILED: {explain(error)}'
        sys.stdout.write(f'{prefix}: {verdict}\n')
    if not n_series:
        raise UsageError(f'{out_dir} contains no results of a series in --links {args.links}')
    if peer is not None and written:
        n_failed += not deliver(written, peer)
    return 1 if n_failed else 0


def make_peer(args: argparse.Namespace) -> Peer | None:
    """Check the options that name a PACS; None if nothing is to be sent."""
    if args.send is None:
        return None
    host, port, aet = args.send
    return Peer.parse(host, port, aet, args.calling_aet, args.listen)


def deliver(paths: Sequence[Path], peer: Peer) -> bool:
    """Send objects, print one line, and return whether all are stored."""
    try:
        delivery = send_objects(paths, peer)
    except CtpprepError as error:
        sys.stdout.write(f'FAILED: {error}\n')
        return False
    sys.stdout.write(f'{"FAILED: " if delivery.problems else ""}{delivery}\n')
    return not delivery.problems


def find_series(
    links: dict[str, Any], out_dir: Path
) -> Iterator[tuple[str, Path, str, dict[str, Any]]]:
    """List the series that have results, or that `ctpprep` has begun.

    Parameters
    ----------
    links : dict
        Content of the private file of ``ctpprep-bids``.
    out_dir : Path

    Yields
    ------
    prefix : str
        Start of the file names.
    folder : Path
        Of the results.
    study : str
        StudyInstanceUID.
    objects : dict
        UIDs of the source, by keyword.
    """
    for study, entry in links.get('studies', {}).items():
        for name, file in entry.get('files', {}).items():
            prefix = name.removesuffix('_ctp.nii.gz')
            folder = out_dir / f'sub-{entry["participant"]}'
            if entry.get('session'):
                folder /= f'ses-{entry["session"]}'
            if prefix == name or 'SourceDicom' not in file:
                continue
            results = folder / 'ct' / f'{prefix}_tmax.nii.gz'
            if results.exists() or read_entry(out_dir, prefix).get('State', NONE) != NONE:
                yield prefix, folder / 'ct', study, file['SourceDicom']


def judge(out_dir: Path, folder: Path, prefix: str, force: bool) -> tuple[str, Findings]:
    """Read the findings of a series, and decide whether its results may be exported.

    Parameters
    ----------
    out_dir, folder : Path
        Of all results, and of those of the series.
    prefix : str
    force : bool
        Whether the user wants results that are not complete, or that quality control did not pass.

    Returns
    -------
    why : str
        Why only the verdict is exported; '' if the results are.
    findings : Findings
    """
    entry = read_entry(out_dir, prefix)
    if entry.get('State') == 'failed':
        cause = str(entry.get('Cause') or 'no cause is recorded')
        return f'ctpprep failed ({cause})', Findings('do not use', reasons=(cause,))
    loss = find_loss(entry, out_dir)
    force = force and (folder / f'{prefix}_tmax.nii.gz').exists()
    if loss and not force:
        why = f'the results are not complete ({loss}), process the series again'
        return why, Findings('do not use', reasons=(loss,))
    findings = read_findings(folder, prefix)
    if loss := loss or ('' if findings.verdict else 'no quality check has a grade'):
        findings = replace(findings, verdict='do not use', reasons=(loss, *findings.reasons))
    if force or not (loss or findings.failed):
        return '', findings
    if loss:
        return f'{loss}, process the series again', findings.verdict_only
    checks = ', '.join(findings.failed)
    why = (
        f'quality control failed ({checks}), look at the report of ctpprep, then use --force to export its '
        'results'
    )
    return why, findings.verdict_only


def read_sources(files: Sequence[tuple[str, str]], objects: dict[str, Any]) -> list[Any]:
    """Read the headers of the images of the first frame.

    Raises
    ------
    SeriesError
        When they are not in the source.
    """
    import pydicom

    wanted = {*objects['SOPInstanceUID'][: objects.get('n_slices', 1)]}
    headers = []
    for path, member in files:
        with open_source(path, member) as stream:
            uid = pydicom.dcmread(
                stream, stop_before_pixels=True, specific_tags=['SOPInstanceUID']
            )
            if str(uid.get('SOPInstanceUID', '')) not in wanted:
                continue
            stream.seek(0)
            header = pydicom.dcmread(stream, stop_before_pixels=True)
            for name in COPIED:
                if name not in header:
                    setattr(header, name, '')
            headers.append(header)
    series = {header.SeriesInstanceUID for header in headers}
    if not headers:
        raise SeriesError('the images of its first frame are not in --source')
    if len(series) > 1:  # slabs in series of their own: one of them is referred to
        headers = [h for h in headers if h.SeriesInstanceUID == min(series)]
    return headers


def make_objects(
    folder: Path, prefix: str, sources: list[Any], findings: Findings, *, verdict_only: bool
) -> dict[str, Any]:
    """Make the objects of a series.

    Parameters
    ----------
    folder : Path
        Of the results.
    prefix : str
    sources : list of pydicom.Dataset
    findings : Findings
    verdict_only : bool
        Make the report alone, without results.

    Returns
    -------
    dict of str to pydicom.Dataset
        By the name of their file.
    """
    import nibabel as nb
    import numpy as np

    if verdict_only:
        return {'sr': make_report(sources, None, findings)}

    def read(ending: str) -> Any:
        path = folder / f'{prefix}_{ending}.nii.gz'
        return nb.load(path) if path.exists() else None

    def read_mask(ending: str) -> Any:
        image = read(ending)
        return None if image is None else np.asarray(image.dataobj) > 0

    made: dict[str, Any] = {}
    masks = {ending: image for ending in SEGMENTS if (image := read(ending)) is not None}
    if masks:
        arrays = {ending: np.asarray(image.dataobj) for ending, image in masks.items()}
        affine = next(iter(masks.values())).affine
        made['seg'] = make_segmentation(sources, arrays, affine)
    tissue, unassessable = read_mask('desc-tissue_mask'), read_mask('label-unassessable_mask')
    for number, ending in enumerate(MAPS, start=1):
        if (image := read(ending)) is not None:
            voxels = np.asarray(image.dataobj, dtype=np.float32).copy()
            # files have 0 where there is no value
            if tissue is not None:
                voxels[~tissue] = np.nan
            if unassessable is not None and ending.startswith('desc-local_'):
                voxels[unassessable] = np.nan
            made[ending] = make_map(sources, ending, voxels, image.affine, number)
    made['sr'] = make_report(sources, made.get('seg'), findings)
    return made | make_pictures(folder.parent, prefix, sources)


def make_pictures(folder: Path, prefix: str, sources: list[Any]) -> dict[str, Any]:
    """Make objects of the one-page summary, if ctpprep drew it.

    Parameters
    ----------
    folder : Path
        Of the participant, or a session of it.
    prefix : str
    sources : list of pydicom.Dataset

    Returns
    -------
    dict of str to pydicom.Dataset
    """
    import numpy as np
    from PIL import Image

    made: dict[str, Any] = {}
    name = f'{prefix}_desc-summary_ctp'
    for figures in (folder / 'figures', folder.parent / 'figures'):
        if (document := figures / f'{name}.pdf').exists():
            made['summary-pdf'] = make_pdf(sources, document.read_bytes())
        if (picture := figures / f'{name}.png').exists():
            with Image.open(picture) as image:
                made['summary'] = make_picture(sources, np.asarray(image.convert('RGB')))
    return made


def write_objects(made: dict[str, Any], target: Path) -> list[Path]:
    """Write objects, and remove those of an earlier export that are not among them.

    Parameters
    ----------
    made : dict of str to pydicom.Dataset
    target : Path
        Folder of the series.

    Returns
    -------
    list of Path
    """
    paths = [target / f'{name}.dcm' for name in made]
    for dataset, path in zip(made.values(), paths, strict=True):
        write_atomically(dataset.save_as, path)
    for name in {'seg', 'sr', 'summary', 'summary-pdf', *MAPS} - {*made}:
        (target / f'{name}.dcm').unlink(missing_ok=True)
    return paths
