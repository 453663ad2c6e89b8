# SPDX-License-Identifier: Apache-2.0
"""The ``ctpprep-provenance`` command: how one output came to be, as a tree.

It reads the graphs in ``prov/`` of a dataset that ctpprep wrote, and compares each file with the
SHA-256 that was recorded. The standard library is enough.
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
GONE = 'not there any more'

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
        0 if all files are as they were recorded, 1 if not, 2 if nothing is known of the file.
    """
    parser = argparse.ArgumentParser(
        prog='ctpprep-provenance',
        description='Show how an output of ctpprep came to be: steps, parameters and files, down to '
        'the raw series. Each file is compared with the SHA-256 that was recorded.',
        epilog='Exit code: 0 if all files are as recorded, 1 if one has changed or is gone, 2 if '
        'nothing is known of FILE.',
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
    except BrokenPipeError:  # `... | head`; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if chain.altered else 0


def find_root(file: Path) -> Path:
    """Find the dataset that holds a file.

    Raises
    ------
    UsageError
        When no folder above it has a dataset_description.json.
    """
    for folder in file.parents:
        if (folder / 'dataset_description.json').is_file():
            return folder
    raise UsageError(f'{file} is in no dataset: no folder above it has a dataset_description.json')


class Chain:
    """What is known of one file.

    Parameters
    ----------
    root : Path
        The dataset.
    uri : str
        BIDS URI of the file in it.
    records : dict of str to dict
        Those of the run that made the file, by their ids.

    Attributes
    ----------
    altered : list of str
        Files that were found changed or gone while the tree was drawn.
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
        self._told: set[str] = set()

    @classmethod
    def of(cls, file: Path) -> 'Chain':
        """Find the run that made a file: the last one whose digest fits, else the last one.

        Raises
        ------
        UsageError
            When no run tells of the file.
        """
        root = find_root(file)
        uri = bids_uri('', file.relative_to(root))
        graphs = sorted((root / 'prov').glob('*.jsonld'))
        if not graphs:
            raise UsageError(f'{root} has no records of runs (prov/*.jsonld)')
        known = []
        for path in graphs:
            listed = read_object(path, UsageError).get('@graph', [])
            records = {each['Id']: each for each in listed if 'Id' in each}
            if uri in records:
                began = records.get('run:ctpprep', {}).get('StartedAtTime', '')
                known.append((began, path.name, records))
        if not known:
            raise UsageError(
                f'no run in {root / "prov"} tells of {file.relative_to(root)}; give an image, table, '
                'transform, sidecar or figure that ctpprep wrote'
            )
        known.sort(key=lambda each: each[:2])
        now = digest(file) if file.is_file() else None
        fitting = [each for each in known if each[2][uri].get('SHA256') == now]
        return cls(root, uri, (fitting or known)[-1][2])

    def lines(self) -> Iterator[str]:
        """Draw the tree."""
        yield from self._draw(self.uri, '', '')

    def _draw(self, identity: str, head: str, indent: str) -> Iterator[str]:
        """Draw a file, the step that made it, and what the step was given."""
        step = self._step(identity)
        if step is None:
            yield f'{head}{self._name(identity)}'
            return
        if step['Id'] in self._told:
            yield f'{head}{self._name(identity)} <- {step["Label"]}, above'
            return
        self._told.add(step['Id'])
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
        """Find the step that computed a file, behind the one that copied it to the dataset."""
        record = self.records.get(identity, {})
        step = self.records.get(record.get('GeneratedBy', ''))
        if step is None or step['Command'].rpartition('.')[2] not in WRITERS:
            return step
        source = record.get('AlternateOf')
        if source is None:  # a sidecar: told by the step that wrote it
            return step
        return self._step(source)

    def _name(self, identity: str) -> str:
        """Name a file as users know it, with the start of its digest and whether it has changed."""
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
        told = record.get('SHA256', '')
        try:
            path = resolve_uri(record['Id'], self.root, self.links)
            now = digest(path) if path.is_file() else None
        except (UsageError, OSError):
            now = None
        if now == told:
            return f'sha256 {told[:12]}'
        self.altered.append(record['Id'])
        if now is None:
            return f'{GONE}; sha256 was {told[:12]}'
        return f'{CHANGED}: sha256 was {told[:12]}, is {now[:12]}'


def _many(value: Any) -> list[str]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _listed(step: Record, start: str) -> str:
    """List parameters or what was measured."""
    values = {
        key.removeprefix(start): value
        for key, value in step.items()
        if key.startswith(start) and not str(value).startswith('sha256:')
    }
    return ', '.join(f'{name}={_short(value)}' for name, value in values.items() if value != '')


def _short(value: Any) -> str:
    """Write a value as people do; long lists by their ends."""
    if isinstance(value, float):
        return f'{value:.6g}'
    if isinstance(value, str) and value.startswith('['):
        items = json.loads(value)
        if len(items) > 4:
            items = [*items[:2], '...', items[-1]]
        return f'[{", ".join(_short(each) for each in items)}]'
    return str(value)


if __name__ == '__main__':
    sys.exit(main())
