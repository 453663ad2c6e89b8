# SPDX-License-Identifier: Apache-2.0
"""The ``ctpprep-provenance`` command: how an output was computed, as a tree.

It reads the records in ``prov/`` of a dataset that ctpprep wrote and compares each file with its
recorded SHA-256. It needs only the standard library.
"""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ctpprep.exceptions import CtpprepError, UsageError
from ctpprep.io.bids import bids_uri, resolve_uri
from ctpprep.io.files import absolute, digest, read_object

WRITERS = ('WriteDerivatives', 'WriteFigures')
WIDTH = 100
CHANGED = 'changed since'
GONE = 'missing'

Record = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0 if all files match their records, 1 if not, 2 if there is no record of the file.
    """
    parser = argparse.ArgumentParser(
        prog='ctpprep-provenance',
        description='Show how an output of ctpprep was computed: steps, parameters and files, back '
        'to the raw series. Each file is compared with its recorded SHA-256.',
        epilog='Exit code: 0 if all files match their records, 1 if one has changed or is missing, '
        '2 if there is no record of FILE.',
    )
    parser.add_argument('file', metavar='FILE', type=Path, help='a file that ctpprep wrote')
    file = absolute(parser.parse_args(argv).file)
    try:
        chain = Chain.of(file)
        tree = '\n'.join(chain.lines()) + '\n'
    except CtpprepError as error:
        sys.stderr.write(f'{parser.prog}: error: {error}\n')
        return 2
    try:
        sys.stdout.write(tree)
        sys.stdout.flush()
    except BrokenPipeError:  # `... | head`; without this, Python reports the error again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if chain.altered else 0


def find_root(file: Path) -> Path:
    """Find the dataset that contains a file.

    Raises
    ------
    UsageError
        If no parent folder contains a dataset_description.json.
    """
    for folder in file.parents:
        if (folder / 'dataset_description.json').is_file():
            return folder
    raise UsageError(
        f'{file} is not in a dataset: no parent folder contains dataset_description.json; give a file '
        'in an output folder of ctpprep'
    )


class Chain:
    """The provenance of one file.

    Parameters
    ----------
    root : Path
        Folder of the dataset.
    uri : str
        BIDS URI of the file in the dataset.
    records : dict of str to dict
        Records of the run that wrote the file, by their ids.

    Attributes
    ----------
    altered : list of str
        Files that are changed or missing, filled while the tree is drawn.
    """

    def __init__(self, root: Path, uri: str, records: dict[str, Record]) -> None:
        self.root, self.uri, self.records = root, uri, records
        description = read_object(root / 'dataset_description.json', UsageError)
        self.links = description.get('DatasetLinks') or {}
        self.published = {
            record['AlternateOf']: record for record in records.values() if 'AlternateOf' in record
        }
        self.altered: list[str] = []
        self._states: dict[str, str] = {}
        self._drawn: set[str] = set()

    @classmethod
    def of(cls, file: Path) -> 'Chain':
        """Find the run that wrote a file: the last one whose digest matches, else the last one.

        Raises
        ------
        UsageError
            If no run has a record of the file.
        """
        root = find_root(file)
        uri = bids_uri('', file.relative_to(root))
        graphs = sorted((root / 'prov').glob('*.jsonld'))
        if not graphs:
            raise UsageError(
                f'{root} contains no provenance records (prov/*.jsonld); give a file that ctpprep wrote'
            )
        runs = []
        for path in graphs:
            listed = read_object(path, UsageError).get('@graph', [])
            records = {record['Id']: record for record in listed if 'Id' in record}
            if uri in records:
                began = records.get('run:ctpprep', {}).get('StartedAtTime', '')
                runs.append((began, path.name, records))
        if not runs:
            raise UsageError(
                f'no provenance record for {file.relative_to(root)} in {root / "prov"}; give an image, '
                'table, transform, sidecar or figure that ctpprep wrote'
            )
        runs.sort(key=lambda run: run[:2])
        now = digest(file) if file.is_file() else None
        matching = [run for run in runs if run[2][uri].get('SHA256') == now]
        return cls(root, uri, (matching or runs)[-1][2])

    def lines(self) -> Iterator[str]:
        """Draw the tree."""
        yield from self._draw(self.uri, '', '')

    def _draw(self, identity: str, head: str, indent: str) -> Iterator[str]:
        """Draw a file, the step that computed it, and the inputs of the step."""
        step = self._step(identity)
        if step is None:
            yield f'{head}{self._name(identity)}'
            return
        if step['Id'] in self._drawn:
            yield f'{head}{self._name(identity)} <- {step["Label"]}, above'
            return
        self._drawn.add(step['Id'])
        yield f'{head}{self._name(identity)}'
        text = f'{step["Label"]}({_listed(step, "parameter:")})'
        if measured := _listed(step, 'measured:'):
            text += f' -> {measured}'
        yield from textwrap.wrap(
            text, max(WIDTH, len(indent) + 60), initial_indent=f'{indent}<- ',
            subsequent_indent=f'{indent}     ', break_long_words=False,
        )  # fmt: skip
        copied = step['Command'].rpartition('.')[2] in WRITERS
        used = _many(self.records[identity].get('DerivedFrom') if copied else step.get('Used'))
        for position, source in enumerate(used):
            last = position == len(used) - 1
            yield from self._draw(
                source, f'{indent}   {"└─" if last else "├─"} ',
                f'{indent}   {"   " if last else "│  "}',
            )  # fmt: skip

    def _step(self, identity: str) -> Record | None:
        """Find the step that computed a file, not the one that copied it to the dataset."""
        record = self.records.get(identity, {})
        step = self.records.get(record.get('GeneratedBy', ''))
        if step is None or step['Command'].rpartition('.')[2] not in WRITERS:
            return step
        source = record.get('AlternateOf')
        if source is None:  # a sidecar, which is described by the step that wrote it
            return step
        return self._step(source)

    def _name(self, identity: str) -> str:
        """Name a file as in the dataset, with the start of its digest and whether it has changed."""
        record = self.published.get(identity) or self.records.get(identity, {'Id': identity})
        if record['Id'].startswith('run:'):
            quantity = record.get('Quantity') or record.get('Label', '')
            return f'{quantity} (work folder, sha256 {record.get("SHA256", "")[:12]})'
        name = record['Id']
        if name not in self._states:
            self._states[name] = self._state(record)
        return f'{name.removeprefix("bids::")} ({self._states[name]})'

    def _state(self, record: Record) -> str:
        """Compare a file with its record."""
        recorded = record.get('SHA256', '')
        try:
            path = resolve_uri(record['Id'], self.root, self.links)
            now = digest(path) if path.is_file() else None
        except (UsageError, OSError):
            now = None
        if now == recorded:
            return f'sha256 {recorded[:12]}'
        self.altered.append(record['Id'])
        if now is None:
            return f'{GONE}; sha256 was {recorded[:12]}'
        return f'{CHANGED}: sha256 was {recorded[:12]}, is {now[:12]}'


def _many(value: Any) -> list[str]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _listed(step: Record, start: str) -> str:
    """List the parameters or the measured values of a step."""
    values = {
        key.removeprefix(start): value
        for key, value in step.items()
        if key.startswith(start) and not str(value).startswith('sha256:')
    }
    return ', '.join(f'{name}={_short(value)}' for name, value in values.items() if value != '')


def _short(value: Any) -> str:
    """Format a value; long lists are abbreviated."""
    if isinstance(value, float):
        return f'{value:.6g}'
    if isinstance(value, str) and value.startswith('['):
        items = json.loads(value)
        if len(items) > 4:
            items = [*items[:2], '...', items[-1]]
        return f'[{", ".join(_short(item) for item in items)}]'
    return str(value)


if __name__ == '__main__':
    sys.exit(main())
