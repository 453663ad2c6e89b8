# SPDX-License-Identifier: Apache-2.0
"""The ``ctpprep-bids`` command: DICOM or a folder of NIfTI files to a BIDS dataset."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.dicom.command import run_command
from ctpprep.dicom.convert import Line, Request, convert_study
from ctpprep.dicom.files import group_by_study
from ctpprep.dicom.flat import convert_flat, find_nifti
from ctpprep.dicom.labels import Labels
from ctpprep.exceptions import CtpprepError, UsageError, explain
from ctpprep.inputs.timing import INTERVAL_RANGE
from ctpprep.io.files import absolute, write_json
from ctpprep.settings import MethodSettings

README = """\
CT perfusion converted by ctpprep-bids. Sidecars contain no names, dates or identifiers of the source.
"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='ctpprep-bids',
        description='Convert CT perfusion series, with non-contrast CT and CT angiography, from DICOM or '
        'from a folder of NIfTI files to a BIDS dataset for ctpprep. Identifiers stay out of it.',
        epilog='Exit code: 0 if every study was converted, 1 if one was not, 2 for an invalid command.',
    )
    parser.add_argument('source', metavar='SOURCE', type=Path, help='folder, file or zip archive')
    parser.add_argument(
        'bids_dir', metavar='BIDS_DIR', type=Path, help='dataset; other files are kept'
    )
    parser.add_argument('--version', action='version', version=f'ctpprep {__version__}')
    parser.add_argument(
        '-n', '--dry-run', action='store_true', help='describe each series, write nothing'
    )
    parser.add_argument(
        '--labels', metavar='TABLE', type=Path,
        help='tab-separated table with the columns source (PatientID, StudyInstanceUID or file), '
        'participant_id, and perhaps session_id',
    )  # fmt: skip
    parser.add_argument(
        '--label-pattern', metavar='REGEX',
        help='regular expression with the group (?P<participant>...), perhaps (?P<session>...), searched '
        'in the PatientID, or in the path of a NIfTI file; without it, participants are numbered',
    )  # fmt: skip
    parser.add_argument(
        '--links', metavar='FILE', type=Path,
        help='private file that links labels to PatientID and UIDs; never share it with the dataset '
        '(default: BIDS_DIR_links.json beside BIDS_DIR)',
    )  # fmt: skip
    parser.add_argument(
        '--frame-interval', metavar='SECONDS', type=float,
        help='for series whose images have an order but no times',
    )  # fmt: skip
    parser.add_argument(
        '--nprocs', metavar='N', type=int, default=1, help='studies in parallel (default: 1)'
    )
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
        0 if every study was converted, 1 if one was not, 2 if the command is invalid.
    """
    return run_command(make_parser(), argv, _run)


def _run(args: argparse.Namespace) -> int:
    source, bids_dir = absolute(args.source), absolute(args.bids_dir)
    links = (
        absolute(args.links) if args.links else bids_dir.with_name(f'{bids_dir.name}_links.json')
    )
    if links.is_relative_to(bids_dir):
        raise UsageError(
            f'--links {links} is in the dataset; it identifies patients, keep it elsewhere'
        )
    low, high = INTERVAL_RANGE
    if args.frame_interval is not None and not low <= args.frame_interval <= high:
        raise UsageError(
            f'--frame-interval must be between {low:g} and {high:g} s, got {args.frame_interval:g}'
        )
    labels = Labels(links, args.labels, args.label_pattern)
    if not source.exists():
        raise UsageError(f'{source} does not exist')
    images = find_nifti(source)
    studies = _find_studies(source, args.nprocs, required=not images)
    if not studies and not images:
        raise UsageError(f'{source} contains neither DICOM images nor NIfTI files')
    n_failed, requests = 0, []
    for (patient, study), files in studies.items():
        try:
            participant, session = labels.of_study(patient, study)
            labels.reserve(study, participant, session)
        except CtpprepError as error:
            n_failed += 1
            _print(
                f'study of {files[0][0]}',
                [Line(f'{len(files)} files', verdict=f'FAILED: {error}')],
            )
            continue
        earlier = labels.content['studies'].get(study, {}).get('files', {})
        requests.append(
            (study, files, Request(bids_dir, participant, session, args.frame_interval, args.dry_run,
                                   MethodSettings().masks.bone_hu, earlier))
        )  # fmt: skip
    n_images = 0
    for (study, _, request), lines in _convert(requests, args.nprocs):
        n_converted = sum(len(line.files) for line in lines if not line.failed)
        n_images += n_converted
        n_failed += any(line.failed for line in lines)
        _print(request.prefix, lines)
        if n_converted and not args.dry_run:
            done = {k: v for line in lines if not line.failed for k, v in line.files.items()}
            labels.record(study, request.participant, request.session, files=done)
            describe_dataset(bids_dir, request.participant)
            labels.save()
    if studies and not n_images and not n_failed and not images:
        sys.stderr.write(f'{source} contains no perfusion series\n')
        return 1
    if images:
        n_failed += _convert_images(source, images, bids_dir, labels, args)
    if not args.dry_run and bids_dir.exists():
        sys.stderr.write(f'dataset: {bids_dir}; private, never share: {links}\n')
    return 1 if n_failed else 0


def _convert_images(
    source: Path, images: list[Path], bids_dir: Path, labels: Labels, args: argparse.Namespace
) -> int:
    """Convert flat NIfTI files; return the number of studies that failed."""
    n_failed, participants = 0, set()
    for prefix, lines in convert_flat(
        source, images, bids_dir, labels, args.frame_interval, args.dry_run
    ):
        n_failed += any(line.failed for line in lines)
        _print(prefix, lines)
        if not prefix.startswith('sub-'):  # it could not be labelled
            continue
        participant = prefix.split('_')[0].removeprefix('sub-')
        participants.add(participant)
        if not args.dry_run and any(line.files for line in lines):
            describe_dataset(bids_dir, participant)
    if not args.dry_run:
        labels.save()
    if len(participants) > 1 and not (args.labels or args.label_pattern):
        sys.stderr.write(
            f'{len(participants)} participants, by the names of the files; --label-pattern or --labels '
            'joins the sessions of one\n'
        )
    return n_failed


def _find_studies(
    source: Path, nprocs: int, required: bool
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Find the DICOM studies; pydicom is needed only if there is nothing else."""
    try:
        return group_by_study(source, nprocs)
    except ModuleNotFoundError as error:
        if not required:
            return {}
        raise UsageError(
            f'{error.name} is not installed; run: pip install "ctpprep[dicom]"'
        ) from error


def _convert(requests: list[Any], nprocs: int) -> Iterator[tuple[Any, list[Line]]]:
    """Convert studies, in parallel, in their order."""
    if nprocs <= 1 or len(requests) < 2:
        for request in requests:
            yield request, convert_study(*request[1:])
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(nprocs, get_context('spawn')) as pool:
        futures = [pool.submit(convert_study, *request[1:]) for request in requests]
        for request, future in zip(requests, futures, strict=True):
            try:
                lines = future.result()
            except Exception as error:  # of the worker, such as one that was killed
                lines = [Line('study', verdict=f'FAILED: {explain(error)}')]
            yield request, lines


def _print(title: str, lines: Iterable[Line]) -> None:
    for line in lines:
        sys.stdout.write(f'{title}  {line}\n')
    sys.stdout.flush()


def describe_dataset(bids_dir: Path, participant: str) -> None:
    """Write the files of the dataset that are missing, and add a row of participants.tsv.

    Parameters
    ----------
    bids_dir : Path
    participant : str
        Label without 'sub-'.
    """
    description = bids_dir / 'dataset_description.json'
    if not description.exists():
        write_json(
            {
                'Name': 'CT perfusion',
                'BIDSVersion': '1.10.0',
                'DatasetType': 'raw',
                'GeneratedBy': [{'Name': 'ctpprep-bids', 'Version': __version__}],
            },
            description,
        )
    # CT is not part of the BIDS standard yet
    for name, text in {'README': README, '.bidsignore': '**/ct\n'}.items():
        if not (bids_dir / name).exists():
            (bids_dir / name).write_text(text)
    table = bids_dir / 'participants.tsv'
    lines = table.read_text().splitlines() if table.exists() else ['participant_id']
    name = f'sub-{participant}'
    if not any(line.split('\t')[0] == name for line in lines):
        row = '\t'.join([name, *['n/a'] * lines[0].count('\t')])
        table.write_text('\n'.join([lines[0], *sorted([*lines[1:], row])]) + '\n')
