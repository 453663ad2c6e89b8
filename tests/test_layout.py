# SPDX-License-Identifier: Apache-2.0
"""The rooms of the package, the direction of imports between them, and the size of their pieces.

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
    'inputs': FILES | {'perfusion'},
    'dicom': FILES | {'__init__', 'inputs', 'perfusion'},
    'registration': set(),
    'agreement': set(),
    'perfusion': {'exceptions', 'settings', 'registration', 'agreement'},
    'figures': {'exceptions', 'settings', 'perfusion'},
    'phantom': {'exceptions', 'registration'},
    'interfaces': FILES | {'perfusion', 'figures', 'registration'},
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
ANTS_HOME = 'registration.py'
# room: what it may import beyond the standard library and ctpprep
THIRD_PARTY = {
    'perfusion': {'numpy', 'scipy'},
    'registration': {'numpy', 'ants'},
    'agreement': {'numpy', 'sklearn'},
}
# Each takes 0.2 to 10 s to import; `ctpprep --help` must not wait for any.
HEAVY = {'ants', 'bids', 'matplotlib', 'nibabel', 'nilearn', 'nipype', 'nireports', 'niworkflows'}
HEAVY |= {'highdicom', 'pandas', 'pydicom', 'scipy', 'skimage', 'sklearn', 'templateflow'}
QUICK = ('__init__.py', '__main__.py', 'cli/__init__.py', 'dicom/cli.py', 'dicom/export.py')
# an interface reads, calls one function and writes
MOST_LINES_TO_RUN = 25
# interfaces that compute nothing may go through what they copy
COPYING = {'interfaces/outputs.py', 'interfaces/viewer.py'}
MOST_LINES = 400
LONG_FILES = {
    'interfaces/wording.py': 'a table: the words of every check once',
    'perfusion/assessment.py': 'one list of what is checked, and its figures by kind',
    'perfusion/brain.py': 'small functions on masks, and the densities they are measured by',
    'perfusion/denoising.py': 'three methods that share smoothing within a mask',
    'perfusion/estimation.py': 'one estimation, whose steps share their intermediate results',
    'perfusion/followup.py': 'one table, and the placing of the lesion it is of',
    'perfusion/homologues.py': 'one search, described by three results, and what follows from it',
    'perfusion/invariants.py': 'one function an invariant, with its reason',
    'perfusion/motion.py': 'small functions on transforms beside one registration',
    'perfusion/precomputed.py': 'a table of units beside the rules of masks',
    'perfusion/preprocessing.py': 'one chain of steps, whose results are described at length',
    'perfusion/quality.py': 'a table of limits beside the figures that they are for',
    'perfusion/segmentation.py': 'small functions on masks of lesions',
    'perfusion/symmetry.py': 'small functions on left and right',
    'perfusion/vessels.py': 'two searches that share the shape of curves',
    'registration.py': 'the one home of antspyx: a function for each kind of registration',
    'settings.py': 'a table: every default once',
    'workflows/outputs.py': 'a table: every output once',
}


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
    """List what the science imports beyond the standard library, numpy and scipy or antspyx."""
    return [
        f'{file}:{line}: {room(file)} must not import {module}'
        for file in sources(package)
        if (allowed := THIRD_PARTY.get(room(file)))
        for module, line, _ in find_imports(package, file)
        if module.split('.')[0] not in {*sys.stdlib_module_names, *allowed, package.name}
        or module == package.name
    ]


def find_early_registration(package: Path) -> list[str]:
    """List the imports of the registration that importing perfusion/, or it, runs."""
    return [
        f'{file}:{line}: {module} belongs inside the function that registers'
        for file in sources(package)
        if room(file) in ('perfusion', 'registration')
        for module, line, at_once in find_imports(package, file)
        if at_once and module.split('.')[:2] in ([package.name, 'registration'], ['ants'])
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


def files_of(package: Path, module: str) -> set[str]:
    """List the files that importing a module of the package runs, its parents first of all."""
    top, *inside = module.split('.')
    if top != package.name:
        return set()
    stems = ['/'.join(inside[: depth + 1]) for depth in range(len(inside))]
    names = {f'{stem}.py' for stem in stems} | {f'{stem}/__init__.py' for stem in stems}
    return {name for name in names if (package / name).is_file()}


def find_slow_starts(package: Path) -> list[str]:
    """List the heavy imports that starting the command runs, directly or through ctpprep."""
    queue = [file for file in QUICK if (package / file).is_file()]
    seen = set(queue)
    wrong = []
    for file in queue:  # grows while it is read
        for module, line, at_once in find_imports(package, file):
            if not at_once:
                continue
            if module.split('.')[0] in HEAVY:
                wrong.append(f'{file}:{line}: {module} is imported when the command starts')
            run = files_of(package, module) - seen
            queue += sorted(run)
            seen |= run
    return wrong


def find_circles(package: Path) -> list[str]:
    """List the modules that import one another, also inside of functions."""
    # a module is run by the import of what is inside its folder, but does not depend on that
    direct = {
        file: {
            target
            for module, *_ in find_imports(package, file)
            for target in files_of(package, module)
            if target.removesuffix('.py').removesuffix('/__init__').replace('/', '.')
            == module.partition('.')[2]
        }
        for file in sources(package)
    }

    def reach(file: str) -> set[str]:
        queue = [*direct[file]]
        for target in queue:  # grows while it is read
            queue += direct[target] - {*queue}
        return {*queue}

    return [f'{file}: imports itself through others' for file in direct if file in reach(file)]


def find_unlicensed(package: Path) -> list[str]:
    """List the modules that do not begin with the SPDX line."""
    return [
        f'{file}: the first line is not {SPDX!r}'
        for file in sources(package)
        if (package / file).read_text(encoding='utf-8').split('\n', 1)[0] != SPDX
    ]


def find_runs(package: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    """List what the interfaces run, without docstrings."""
    for file in sources(package):
        if room(file) != 'interfaces':
            continue
        for node in ast.walk(ast.parse((package / file).read_text(encoding='utf-8'))):
            if isinstance(node, ast.FunctionDef) and node.name == '_run_interface':
                if ast.get_docstring(node) is not None:
                    del node.body[0]
                yield file, node


def find_long_runs(package: Path) -> list[str]:
    """List the interfaces that do more than read, call one function and write."""
    return [
        f'{file}:{run.lineno}: _run_interface has {length} lines'
        for file, run in find_runs(package)
        if (length := run.body[-1].end_lineno - run.body[0].lineno + 1) > MOST_LINES_TO_RUN
    ]


def find_numbers_in_runs(package: Path) -> list[str]:
    """List the numbers in interfaces but 0, 1 and -1: they belong to the settings or the science."""
    return [
        f'{file}:{node.lineno}: {node.value} in _run_interface'
        for file, run in find_runs(package)
        for node in ast.walk(run)
        if isinstance(node, ast.Constant)
        and type(node.value) in (int, float, complex)
        and node.value not in (0, 1)
    ]


def find_loops_in_runs(package: Path) -> list[str]:
    """List the interfaces that go through groups of voxels or slices themselves."""
    return [
        f'{file}:{node.lineno}: a loop in _run_interface'
        for file, run in find_runs(package)
        if file not in COPYING
        for node in ast.walk(run)
        if isinstance(node, ast.For | ast.While)
    ]


def find_long_files(package: Path) -> list[str]:
    """List the long modules that have no reason to be."""
    return [
        f'{file}: {length} lines; split it, or give it a reason in LONG_FILES'
        for file in sources(package)
        if file not in LONG_FILES
        and (length := len((package / file).read_text(encoding='utf-8').splitlines())) > MOST_LINES
    ]


CHECKS = [
    find_upward_imports,
    find_foreign_science,
    find_early_registration,
    find_stray_ants,
    find_slow_starts,
    find_circles,
    find_unlicensed,
    find_long_runs,
    find_numbers_in_runs,
    find_loops_in_runs,
    find_long_files,
]


@pytest.mark.parametrize('check', CHECKS)
def test_package_keeps_its_layout(check):
    wrong = check(PACKAGE)
    assert not wrong, '\n'.join(wrong)


def test_package_is_found():
    assert {'__init__.py', 'perfusion/__init__.py', 'workflows/__init__.py'} <= {*sources(PACKAGE)}
    assert len([*find_runs(PACKAGE)]) > 15


@pytest.mark.parametrize('file', LONG_FILES)
def test_a_file_with_a_reason_to_be_long_is_long(file):
    assert len((PACKAGE / file).read_text(encoding='utf-8').splitlines()) > MOST_LINES


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
            'perfusion/chain.py': 'def f():\n    from ctpprep.registration import register',
            'registration.py': 'import numpy as np\ndef register():\n    import ants',
            'interfaces/registration.py': 'from ctpprep.registration import register\n'
            'def _run_interface(self, runtime):\n    return x[0] + x[-1]',
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


def run_of(text: str) -> str:
    """Write an interface that runs the text."""
    return f'class Maps:\n  def _run_interface(self, runtime):\n    {text}'


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
        (find_foreign_science, 'registration', 'def f():\n    import nibabel'),
        (find_early_registration, 'perfusion__maps', 'from ctpprep.registration import register'),
        (find_early_registration, 'perfusion__maps', 'from .. import registration'),
        (find_early_registration, 'registration', 'import ants'),
        (find_upward_imports, 'registration', 'from ctpprep.perfusion import grid'),
        (find_stray_ants, 'workflows__base', 'def f():\n    import ants.core'),
        (find_stray_ants, 'perfusion__registration', 'from ants import registration'),
        (find_stray_ants, 'interfaces__registration', 'def f():\n    import ants'),
        (find_slow_starts, 'cli', 'import nipype.pipeline.engine as pe'),
        (find_slow_starts, 'cli', 'from .inputs.series import Series'),
        (find_slow_starts, 'cli', 'try:\n    import nibabel\nexcept ImportError:\n    pass'),
        (find_long_runs, 'interfaces__maps', run_of('pass\n    ' * 25 + 'pass')),
        (find_long_runs, 'interfaces__maps', run_of('call(\n' + '\n' * 23 + '    )\n    pass')),
        (find_numbers_in_runs, 'interfaces__maps', run_of('return x > 0.5')),
        (find_numbers_in_runs, 'interfaces__maps', run_of('return x[-2]')),
        (find_loops_in_runs, 'interfaces__maps', run_of('for slices in groups:\n        f()')),
        (find_loops_in_runs, 'interfaces__maps', run_of('while groups:\n        f()')),
        (find_long_files, 'perfusion__maps', '\n' * 400),
    ],
)
def test_violation_is_caught(check, file, text, planted):
    assert len(check(planted(**{file: text}))) == 1


def test_modules_that_import_one_another_are_caught(planted):
    package = planted(perfusion__grid='def f():\n    from ctpprep.perfusion.maps import g')
    names = [line.partition(':')[0] for line in find_circles(package)]
    assert names == ['perfusion/grid.py', 'perfusion/maps.py']


def test_a_docstring_does_not_make_a_run_long(planted):
    docstring = '"""Run.' + '\n' * 40 + '"""'
    assert find_long_runs(planted(interfaces__maps=run_of(f'{docstring}\n    pass'))) == []


def test_missing_spdx_line_is_caught(planted):
    package = planted()
    (package / 'perfusion' / 'grid.py').write_text('"""No licence."""\n')
    assert [line.split(':')[0] for line in find_unlicensed(package)] == ['perfusion/grid.py']
