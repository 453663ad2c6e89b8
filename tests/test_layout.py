# SPDX-License-Identifier: Apache-2.0
"""The rooms of the package and the direction of imports between them.

    cli -> group -> reports -> provenance, engine -> workflows -> inputs, interfaces -> io, perfusion

Read from the source with `ast`, so an import inside a function counts too. The rules are one
table, `MAY_IMPORT`; a new module at the top level of the package needs a row there.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'ctpprep'
SPDX = '# SPDX-License-Identifier: Apache-2.0'

FILES = {'exceptions', 'settings', 'io'}
# room: what it may import of ctpprep besides itself
MAY_IMPORT: dict[str, set[str]] = {
    'exceptions': set(),
    'settings': {'exceptions'},
    'io': {'exceptions', 'settings'},
    'inputs': FILES,
    'perfusion': {'exceptions', 'settings'},
    'figures': {'exceptions', 'settings', 'perfusion'},
    'phantom': {'exceptions'},
    'interfaces': FILES | {'perfusion', 'figures'},
    'workflows': FILES | {'perfusion', 'interfaces', 'inputs'},
    'engine': FILES | {'inputs', 'workflows', 'interfaces'},
    'provenance': FILES | {'inputs', 'workflows', 'engine'},
    'reports': FILES | {'inputs', 'perfusion', 'interfaces', 'figures', 'workflows', 'engine'},
    'group': FILES | {'inputs', 'perfusion', 'figures', 'reports'},
    'cli': FILES
    | {
        'inputs',
        'perfusion',
        'interfaces',
        'workflows',
        'engine',
        'provenance',
        'reports',
        'group',
        'figures',
    },
    '__init__': set(),
    '__main__': {'cli'},
}
SCIENCE = {*sys.stdlib_module_names, 'numpy', 'scipy'}
ANTS_HOME = 'interfaces/registration.py'
# Each takes 0.2 to 10 s to import; `ctpprep --help` must not wait for any.
HEAVY = {'ants', 'bids', 'matplotlib', 'nibabel', 'nilearn', 'nipype', 'nireports', 'niworkflows'}
HEAVY |= {'pandas', 'scipy', 'skimage', 'sklearn', 'templateflow'}
QUICK = ('__init__.py', '__main__.py', 'cli/__init__.py')


class Import(NamedTuple):
    """An imported module, absolute, and whether importing the file imports it."""

    module: str
    line: int
    at_once: bool


def sources(package: Path) -> list[str]:
    """List the modules of the package as relative paths: 'perfusion/maps.py'."""
    return sorted(path.relative_to(package).as_posix() for path in package.rglob('*.py'))


def room(file: str) -> str:
    """Name the room of a relative path: 'perfusion' of 'perfusion/maps.py', 'cli' of 'cli.py'."""
    return file.split('/')[0].removesuffix('.py')


def find_imports(package: Path, file: str) -> list[Import]:
    """List what one file imports; `from a import b` is a.b if that is a module, else a."""
    here = [package.name, *Path(file).parent.parts]

    def is_module(module: str) -> bool:
        path = package.parent.joinpath(*module.split('.'))
        return path.is_dir() or path.with_suffix('.py').is_file()

    def walk(node: ast.AST, at_once: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Import():
                    for alias in child.names:
                        yield Import(alias.name, child.lineno, at_once)
                case ast.ImportFrom():
                    above = here[: len(here) - child.level + 1] if child.level else []
                    module = '.'.join([*above, *filter(None, [child.module])])
                    for alias in child.names:
                        deeper = f'{module}.{alias.name}'
                        yield Import(
                            deeper if is_module(deeper) else module, child.lineno, at_once
                        )
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                    yield from walk(child, False)
                case ast.If() if 'TYPE_CHECKING' in ast.unparse(child.test):
                    yield from walk(child, False)
                case _:
                    yield from walk(child, at_once)

    return list(walk(ast.parse((package / file).read_text(encoding='utf-8')), True))


def find_upward_imports(package: Path) -> list[str]:
    """List the imports that leave a room in a direction that `MAY_IMPORT` does not name."""
    wrong = []
    for file in sources(package):
        if room(file) not in MAY_IMPORT:
            wrong.append(f'{file}: no room of this name; give it a row in MAY_IMPORT')
            continue
        for module, line, _ in find_imports(package, file):
            top, *inside = module.split('.')
            if top != package.name or not inside or inside[0] == room(file):
                continue
            if inside[0] not in MAY_IMPORT[room(file)]:
                wrong.append(f'{file}:{line}: {room(file)} must not import {module}')
    return wrong


def find_foreign_science(package: Path) -> list[str]:
    """List what perfusion/ imports beyond the standard library, numpy and scipy."""
    return [
        f'{file}:{line}: perfusion must not import {module}'
        for file in sources(package)
        if room(file) == 'perfusion'
        for module, line, _ in find_imports(package, file)
        if module.split('.')[0] not in {*SCIENCE, package.name} or module == package.name
    ]


def find_stray_ants(package: Path) -> list[str]:
    """List the imports of antspyx outside its one home."""
    return [
        f'{file}:{line}: only {ANTS_HOME} imports ants'
        for file in sources(package)
        if file != ANTS_HOME
        for module, line, _ in find_imports(package, file)
        if module.split('.')[0] == 'ants'
    ]


def find_slow_starts(package: Path) -> list[str]:
    """List the heavy imports that starting the command runs, directly or through ctpprep."""
    files = sources(package)
    queue = [file for file in QUICK if file in files]
    seen = set(queue)
    wrong = []
    for file in queue:  # grows while it is read
        for module, line, at_once in find_imports(package, file):
            if not at_once:
                continue
            top, *inside = module.split('.')
            if top in HEAVY:
                wrong.append(f'{file}:{line}: {module} is imported when the command starts')
            if top == package.name:
                stems = ['/'.join(inside[: depth + 1]) for depth in range(len(inside))]
                run = {f'{stem}.py' for stem in stems} | {f'{stem}/__init__.py' for stem in stems}
                queue += [each for each in files if each in run - seen]
                seen |= run
    return wrong


def find_unlicensed(package: Path) -> list[str]:
    """List the modules that do not begin with the SPDX line."""
    return [
        f'{file}: the first line is not {SPDX!r}'
        for file in sources(package)
        if (package / file).read_text(encoding='utf-8').split('\n', 1)[0] != SPDX
    ]


CHECKS = [
    find_upward_imports,
    find_foreign_science,
    find_stray_ants,
    find_slow_starts,
    find_unlicensed,
]


@pytest.mark.parametrize('check', CHECKS)
def test_package_keeps_its_layout(check):
    wrong = check(PACKAGE)
    assert not wrong, '\n'.join(wrong)


def test_package_is_found():
    assert {'__init__.py', 'perfusion/__init__.py', 'workflows/__init__.py'} <= {*sources(PACKAGE)}


@pytest.fixture
def planted(tmp_path):
    """Return a function that writes a small package without violations, plus the given files."""

    def plant(**changed: str) -> Path:
        files = {
            '__init__.py': 'from importlib.metadata import version',
            '__main__.py': 'from ctpprep.cli import main',
            'cli.py': 'from ctpprep import __version__, settings\n'
            'def main():\n    from ctpprep.workflows.base import init_ctpprep_wf',
            'exceptions.py': '',
            'settings.py': 'from .exceptions import UsageError',
            'inputs/__init__.py': '',
            'inputs/series.py': 'import nibabel as nb\nfrom ctpprep import exceptions',
            'perfusion/__init__.py': '',
            'perfusion/maps.py': 'import math\nimport numpy as np\nfrom scipy import ndimage\n'
            'from ctpprep.exceptions import UsageError\nfrom . import grid\nfrom .grid import f',
            'perfusion/grid.py': '',
            'interfaces/__init__.py': '',
            'interfaces/maps.py': 'from nipype.interfaces.ants import Registration\n'
            'from ctpprep.perfusion import maps',
            'interfaces/registration.py': 'def register():\n    import ants',
            'workflows/__init__.py': '',
            'workflows/base.py': 'import nipype\nfrom ..interfaces.maps import Maps',
        }
        # '/' and '.' cannot stand in a keyword
        files |= {f'{name.replace("__", "/")}.py': text for name, text in changed.items()}
        package = tmp_path / 'ctpprep'
        for name, text in files.items():
            path = package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'{SPDX}\n{text}\n')
        return package

    return plant


@pytest.mark.parametrize('check', CHECKS)
def test_sound_package_passes(check, planted):
    assert check(planted()) == []


@pytest.mark.parametrize(
    ('check', 'file', 'text'),
    [
        (find_upward_imports, 'perfusion__maps', 'from ctpprep.interfaces import maps'),
        (find_upward_imports, 'perfusion__maps', 'from ctpprep import inputs'),
        (find_upward_imports, 'perfusion__maps', 'from .. import inputs'),
        (find_upward_imports, 'perfusion__maps', 'from ..io.nifti import load'),
        (
            find_upward_imports,
            'perfusion__maps',
            'def f():\n    import ctpprep.inputs.series as s',
        ),
        (find_upward_imports, 'interfaces__maps', 'from ctpprep.workflows.base import x'),
        (find_upward_imports, 'workflows__base', 'from ..cli import main'),
        (find_upward_imports, 'settings', 'import ctpprep.perfusion.maps'),
        (find_upward_imports, 'exceptions', 'from .settings import MethodSettings'),
        (find_upward_imports, 'phantom', 'from ctpprep.perfusion.grid import f'),
        (find_upward_imports, 'figures', 'from ctpprep.interfaces.maps import Maps'),
        (find_upward_imports, 'utils__drawer', ''),
        (find_foreign_science, 'perfusion__maps', 'import nibabel as nb'),
        (find_foreign_science, 'perfusion__maps', 'def f():\n    from skimage import measure'),
        (find_foreign_science, 'perfusion__deep__er', 'if TYPE_CHECKING:\n    import pandas'),
        (find_foreign_science, 'perfusion__maps', 'from ctpprep import __version__'),
        (find_stray_ants, 'workflows__base', 'def f():\n    import ants.core'),
        (find_stray_ants, 'perfusion__registration', 'from ants import registration'),
        (find_slow_starts, 'cli', 'import nipype.pipeline.engine as pe'),
        (find_slow_starts, 'cli', 'from .inputs.series import Series'),
        (find_slow_starts, 'cli', 'try:\n    import nibabel\nexcept ImportError:\n    pass'),
    ],
)
def test_violation_is_caught(check, file, text, planted):
    assert len(check(planted(**{file: text}))) == 1


def test_missing_spdx_line_is_caught(planted):
    package = planted()
    (package / 'perfusion' / 'grid.py').write_text('"""No licence."""\n')
    assert [each.split(':')[0] for each in find_unlicensed(package)] == ['perfusion/grid.py']
