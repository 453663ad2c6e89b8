# SPDX-License-Identifier: Apache-2.0
"""Compare two output folders of ctpprep and print every difference.

::

    python scripts/compare_outputs.py OLD NEW [--ignore-settings]

Images are compared by header and voxels, transforms and JSON by content, tables by cell, figures
as text. HTML pages are checked for presence only. Ignored are what differs between any two runs:
logs, provenance records, crash reports, times, identifiers of a run, the version of ctpprep and
links to other folders.

Exit code: 0 if the folders agree, 1 if they differ, 2 if one is missing or contains no output.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import h5py
import nibabel as nb
import numpy as np

IGNORED_FOLDERS = {'log', 'logs', 'prov'}
IGNORED_DATASETS = {'HDFVersion', 'ITKVersion', 'OSName', 'OSVersion'}
MISSING = '(missing)'
LONGEST_VALUE = 60  # characters of a value in a message

UUID = re.compile(r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}')
TIME_STAMP = re.compile(r'\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})?')
RUN_TIME = re.compile(r'(?<!\d)20\d{6}-\d{6}(?!\d)')
SVG_DATE = re.compile(r'<dc:date>.*?</dc:date>', re.DOTALL)
# matplotlib names clip paths and markers by a hash that is salted at random unless a salt is set
SVG_ID = re.compile(r'(?<=id=")[a-zA-Z]?[0-9a-f]{10,}(?=")')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description='Compare two output folders of ctpprep and print every difference.',
        epilog='Exit code: 0 if the folders agree, 1 if they differ, 2 if one is missing or '
        'contains no output.',
    )
    parser.add_argument('old', type=Path, metavar='OLD', help='output folder of the reference')
    parser.add_argument('new', type=Path, metavar='NEW', help='output folder to check')
    parser.add_argument(
        '--ignore-field', action='append', default=[], metavar='FIELD',
        help='leave out a field of the sidecars, such as Sources; may be repeated',
    )  # fmt: skip
    parser.add_argument(
        '--ignore-settings',
        action='store_true',
        help='accept another nesting of the sidecar field Settings: the same names must have the '
        'same values, wherever they are nested',
    )
    options = parser.parse_args(argv)
    for folder in (options.old, options.new):
        if not folder.is_dir():
            sys.stderr.write(f'{parser.prog}: error: {folder} is not a folder\n')
            return 2
        if not list_outputs(folder):
            sys.stderr.write(f'{parser.prog}: error: {folder} contains no output of ctpprep\n')
            return 2
    n_compared, differences = compare_folders(
        options.old, options.new, options.ignore_settings, options.ignore_field
    )
    for path, messages in differences.items():
        for message in messages:
            print(f'{path}: {message}')
    print(format_summary(n_compared, differences))
    return 1 if differences else 0


def list_outputs(folder: Path) -> set[str]:
    """List the files of an output folder as relative paths, without logs and provenance."""
    paths = (path.relative_to(folder) for path in folder.rglob('*') if path.is_file())
    return {path.as_posix() for path in paths if not IGNORED_FOLDERS & {*path.parts[:-1]}}


def compare_folders(
    old: Path, new: Path, ignore_settings: bool = False, ignore_fields: Sequence[str] = ()
) -> tuple[Counter[str], dict[str, list[str]]]:
    """Compare all files of two folders.

    Returns
    -------
    n_compared : Counter
        Files of each kind, including those in one folder only.
    differences : dict
        Relative path to its differences; files that agree are left out.
    """
    old_paths, new_paths = list_outputs(old), list_outputs(new)
    n_compared: Counter[str] = Counter()
    differences = {}
    for path in sorted(old_paths | new_paths):
        n_compared[kind_of(path)] += 1
        if path not in new_paths:
            differences[path] = ['only in OLD']
        elif path not in old_paths:
            differences[path] = ['only in NEW']
        elif messages := compare_files(old / path, new / path, ignore_settings, ignore_fields):
            differences[path] = messages
    return n_compared, differences


def kind_of(path: str) -> str:
    """Classify a relative path."""
    kinds = {
        '_xfm.h5': 'transform',
        '_xfm.txt': 'transform',
        'desc-viewer_ctp.json': 'viewer data',
        '.nii.gz': 'image',
        '.nii': 'image',
        '.tsv': 'table',
        '.json': 'sidecar',
        '.svg': 'figure',
        '.html': 'page',
    }
    return next((kind for ending, kind in kinds.items() if path.endswith(ending)), 'other')


def compare_files(
    old: Path, new: Path, ignore_settings: bool, ignore_fields: Sequence[str] = ()
) -> list[str]:
    """Compare two files of the same name; a file that cannot be read is a difference as well."""
    compare: Callable[[Path, Path], Iterator[str]]
    match kind_of(old.name):
        case 'page':
            return []
        case 'image':
            compare = compare_images
        case 'transform' if old.suffix == '.h5':
            compare = compare_hdf5
        case 'table':
            compare = compare_tables
        case 'figure':
            compare = compare_figures
        case 'sidecar' | 'viewer data':
            compare = partial(
                compare_json_files, ignore_settings=ignore_settings, ignore_fields=ignore_fields
            )
        case _:
            compare = compare_bytes
    try:
        return list(compare(old, new))
    except (OSError, ValueError, nb.filebasedimages.ImageFileError) as error:
        return [f'cannot be read: {error}']


def compare_bytes(old: Path, new: Path) -> Iterator[str]:
    """Compare two files byte by byte."""
    if old.read_bytes() != new.read_bytes():
        yield 'content differs'


def compare_images(old: Path, new: Path) -> Iterator[str]:
    """Compare every header field (affine, form codes, type on disk, units) and every voxel."""
    old_image, new_image = nb.load(old), nb.load(new)
    for field, value in old_image.header.items():
        if not is_same_array(value, new_image.header[field]):
            yield describe_change(f'header field {field}', value, new_image.header[field])
    yield from compare_arrays('voxels', old_image.dataobj, new_image.dataobj)


def compare_hdf5(old: Path, new: Path) -> Iterator[str]:
    """Compare the datasets of two ITK transforms, except the versions of library and machine."""

    def read(path: Path) -> dict[str, Any]:
        datasets: dict[str, Any] = {}

        def collect(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and name not in IGNORED_DATASETS:
                datasets[name] = item[()]

        with h5py.File(path) as file:
            file.visititems(collect)
        return datasets

    old_datasets, new_datasets = read(old), read(new)
    for name in sorted(old_datasets.keys() | new_datasets.keys()):
        if name not in new_datasets or name not in old_datasets:
            yield f'{name}: only in {"OLD" if name in old_datasets else "NEW"}'
        else:
            yield from compare_arrays(name, old_datasets[name], new_datasets[name])


def is_same_array(old: Any, new: Any) -> bool:
    """Return whether shape, type and all values agree; NaN equals NaN."""
    old, new = np.asanyarray(old), np.asanyarray(new)
    with_nan = old.dtype.kind in 'fc' and new.dtype.kind in 'fc'
    return old.dtype == new.dtype and np.array_equal(old, new, equal_nan=with_nan)


def compare_arrays(name: str, old: Any, new: Any) -> Iterator[str]:
    """Describe how two arrays differ: shape, type, or the number of values."""
    old, new = np.asanyarray(old), np.asanyarray(new)
    if is_same_array(old, new):
        return
    if old.shape != new.shape:
        yield describe_change(f'{name}: shape', old.shape, new.shape)
        return
    if old.dtype != new.dtype:
        yield describe_change(f'{name}: type', old.dtype, new.dtype)
    unequal = np.asarray(old != new)
    if old.dtype.kind in 'fc' and new.dtype.kind in 'fc':
        unequal &= ~(np.isnan(old) & np.isnan(new))
    if not unequal.any():
        return
    message = f'{name}: {unequal.sum()} of {unequal.size} values differ'
    if old.dtype.kind in 'biuf' and new.dtype.kind in 'biuf':
        change = np.abs(old[unequal].astype(float) - new[unequal].astype(float))
        message += f', by {np.max(change):.6g} at most'
    yield message


def compare_tables(old: Path, new: Path) -> Iterator[str]:
    """Compare two tables cell by cell, as text."""
    old_rows, new_rows = (
        [line.split('\t') for line in path.read_text(encoding='utf-8').splitlines()]
        for path in (old, new)
    )
    header = old_rows[0] if old_rows else []
    for number, (old_row, new_row) in enumerate(
        zip_longest(old_rows, new_rows, fillvalue=[MISSING]), start=1
    ):
        if MISSING in (old_row[0], new_row[0]):
            yield describe_change(f'line {number}', ' '.join(old_row), ' '.join(new_row))
            continue
        for index, (old_cell, new_cell) in enumerate(
            zip_longest(old_row, new_row, fillvalue=MISSING)
        ):
            column = header[index] if index < len(header) else f'column {index + 1}'
            if mask_run(old_cell) != mask_run(new_cell):
                yield describe_change(f'line {number}, {column}', old_cell, new_cell)


def compare_figures(old: Path, new: Path) -> Iterator[str]:
    """Compare two SVG files line by line, whatever their date and generated identifiers."""
    old_lines, new_lines = (
        normalize_svg(path.read_text(encoding='utf-8')).splitlines() for path in (old, new)
    )
    unequal = [
        (number, *lines)
        for number, lines in enumerate(
            zip_longest(old_lines, new_lines, fillvalue=MISSING), start=1
        )
        if lines[0] != lines[1]
    ]
    if unequal:
        number, old_line, new_line = unequal[0]
        change = describe_change(f'first at line {number}', old_line, new_line)
        yield f'{len(unequal)} lines differ, {change}'


def normalize_svg(text: str) -> str:
    """Remove the date and number the generated identifiers in the order of their appearance."""
    text = SVG_DATE.sub('', text)
    for number, identifier in enumerate(dict.fromkeys(SVG_ID.findall(text))):
        text = re.sub(rf'(?<=["#]){identifier}(?=[")])', f'generated-{number}', text)
    return text


def compare_json_files(
    old: Path, new: Path, ignore_settings: bool, ignore_fields: Sequence[str] = ()
) -> Iterator[str]:
    """Compare two JSON files field by field."""
    contents = [json.loads(path.read_text(encoding='utf-8')) for path in (old, new)]
    if old.name == 'dataset_description.json':
        contents = [mask_description(content) for content in contents]
    if ignore_settings:
        contents = [flatten_settings(content) for content in contents]
    if ignore_fields:
        contents = [
            {key: value for key, value in content.items() if key not in ignore_fields}
            for content in contents
        ]
    yield from compare_json(*contents)


def compare_json(old: Any, new: Any, field: str = '') -> Iterator[str]:
    """Compare two JSON values recursively; the order of the fields of an object is ignored."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old | new:
            inner = f'{field}.{name}' if field else name
            yield from compare_json(old.get(name, MISSING), new.get(name, MISSING), inner)
    elif isinstance(old, list) and isinstance(new, list):
        arrays = [as_numbers(value) for value in (old, new)]
        if arrays[0] is not None and arrays[1] is not None and not is_same_array(*arrays):
            yield from compare_arrays(field, *arrays)  # one line, not one for each number
            return
        if len(old) != len(new):
            yield describe_change(f'{field}: length', len(old), len(new))
        for index, (old_item, new_item) in enumerate(zip(old, new, strict=False)):
            yield from compare_json(old_item, new_item, f'{field}[{index}]')
    elif json.dumps(mask_run(old)) != json.dumps(mask_run(new)):  # NaN equals NaN, 1 is not true
        yield describe_change(field, old, new)


def as_numbers(values: list[Any]) -> np.ndarray | None:
    """Return a list of numbers, nested or not, as an array; None if it is anything else."""
    # as objects first: numpy would turn True into 1, and reject lists of unequal length
    items = np.array(values, dtype=object).ravel()
    return np.array(values, float) if all(type(item) in (int, float) for item in items) else None


def flatten_settings(content: Any) -> Any:
    """Replace each field Settings by {name of innermost field: its value as JSON}.

    >>> flatten_settings({'Settings': {'deconvolution': {'lambda_rel': 0}}})
    {'Settings': {'lambda_rel': '0'}}
    """

    def leaves(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in settings.items():
            if isinstance(value, dict):
                yield from leaves(value)
            else:
                yield name, value

    if isinstance(content, list):
        return [flatten_settings(item) for item in content]
    if not isinstance(content, dict):
        return content
    flat = {}
    for name, value in content.items():
        if name == 'Settings' and isinstance(value, dict):
            values: dict[str, set[str]] = {}
            for leaf, leaf_value in leaves(value):
                values.setdefault(leaf, set()).add(json.dumps(leaf_value))
            flat[name] = {leaf: ' | '.join(sorted(texts)) for leaf, texts in values.items()}
        else:
            flat[name] = flatten_settings(value)
    return flat


def mask_description(content: Any) -> Any:
    """Blank the versions and the linked folders of a dataset description."""
    if isinstance(content, dict):
        for generator in content.get('GeneratedBy', []):
            if 'Version' in generator:
                generator['Version'] = '(version)'
        content['DatasetLinks'] = dict.fromkeys(content.get('DatasetLinks', {}), '(folder)')
    return content


def mask_run(value: Any) -> Any:
    """Blank time stamps and identifiers of a run in a text; other values are returned as is."""
    if not isinstance(value, str):
        return value
    for pattern in (UUID, TIME_STAMP, RUN_TIME):
        value = pattern.sub('*', value)
    return value


def describe_change(name: str, old: Any, new: Any) -> str:
    """Describe one difference in one line, from the first place where the two values differ.

    >>> describe_change('Units', 's', 'ms')
    "Units: 's' -> 'ms'"
    """
    texts = [repr(np.asarray(v).tolist() if isinstance(v, np.ndarray) else v) for v in (old, new)]
    same = next(
        (i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b),
        min(map(len, texts)),
    )
    start = 0 if max(map(len, texts)) <= LONGEST_VALUE else max(same - LONGEST_VALUE // 3, 0)
    short = [
        f'{"..." if start else ""}{text[start : start + LONGEST_VALUE]}'
        f'{"..." if len(text) > start + LONGEST_VALUE else ""}'
        for text in texts
    ]
    return f'{name}: {short[0]} -> {short[1]}'


def format_summary(n_compared: Counter[str], differences: dict[str, list[str]]) -> str:
    """Format the table of kinds of file with the numbers compared and different."""
    n_different = Counter(kind_of(path) for path in differences)
    rows = [(kind, n_compared[kind], n_different[kind]) for kind in sorted(n_compared)]
    rows.append(('total', n_compared.total(), n_different.total()))
    lines = [f'{"kind":<12}{"compared":>10}{"different":>11}']
    lines += [f'{kind:<12}{compared:>10}{different:>11}' for kind, compared, different in rows]
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
