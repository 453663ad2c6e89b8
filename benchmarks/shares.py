# SPDX-License-Identifier: Apache-2.0
"""Run ctpprep in one process and note on what its time was spent.

    python benchmarks/shares.py FILE BIDS_DIR OUT_DIR participant [options of ctpprep]

Every moment belongs to the innermost of these that is at work:

    numerical   functions and methods of ctpprep.perfusion, functions of ants
    imports     import statements
    reading     voxels that nibabel reads: decompression, scaling
    writing     images that nibabel writes: compression
    figures     functions of ctpprep.figures: matplotlib, nilearn, SVG
    report      functions of ctpprep.reports
    other       all else: start, graph, nipype's nodes with hashes and records, sidecars, provenance

FILE gets wall and processor time of each in s, as JSON. numpy that interfaces call between functions of
ctpprep.perfusion counts as other, so that what is not numerical is rather too long.
"""

import builtins
import contextlib
import functools
import inspect
import json
import sys
import threading
import time
from collections import defaultdict

ROOMS = {
    'ctpprep.perfusion': 'numerical', 'ctpprep.figures': 'figures', 'ctpprep.reports': 'report'
}  # fmt: skip


class Clock:
    """Time by share; one thread at a time is at work, since there is one process with one thread."""

    def __init__(self):
        self.stack = ['other']
        self.spent = defaultdict(lambda: [0.0, 0.0])
        self.last = time.perf_counter(), time.process_time()
        self.lock = threading.Lock()

    def turn(self, push=None):
        """Book the time since the last turn; begin a share, or end one."""
        with self.lock:
            now = time.perf_counter(), time.process_time()
            spent = self.spent[self.stack[-1]]
            for i in (0, 1):
                spent[i] += now[i] - self.last[i]
            self.last = now
            if push:
                self.stack.append(push)
            else:
                self.stack.pop()

    @contextlib.contextmanager
    def share(self, name):
        """Book what is done within to a share."""
        self.turn(name)
        try:
            yield
        finally:
            self.turn()

    def wrap(self, function, name):
        """Book each call of a function to a share."""

        @functools.wraps(function)
        def timed(*args, **kwargs):
            with self.share(name):
                return function(*args, **kwargs)

        timed.is_timed = True
        return timed


def wrap_module(clock, module, name):
    """Time the functions and methods that a module defines, in whichever namespace they are."""
    swapped = {}
    for value in list(vars(module).values()):
        home = getattr(value, '__module__', None)
        if home != module.__name__:
            continue
        if inspect.isfunction(value) and not inspect.isgeneratorfunction(value):
            swapped[id(value)] = value, clock.wrap(value, name)
        elif inspect.isclass(value):
            for method, its in list(vars(value).items()):
                if inspect.isfunction(its) and not hasattr(its, 'is_timed'):
                    with contextlib.suppress(AttributeError, TypeError):
                        setattr(value, method, clock.wrap(its, name))
    for each in list(sys.modules.values()):
        if getattr(each, '__name__', '').startswith('ctpprep'):
            for key, value in list(vars(each).items()):
                if id(value) in swapped and swapped[id(value)][0] is value:
                    setattr(each, key, swapped[id(value)][1])


def wrap_ants(clock):
    """Time what antspyx offers."""
    import ants

    for key, value in list(vars(ants).items()):
        if inspect.isfunction(value) and not hasattr(value, 'is_timed'):
            setattr(ants, key, clock.wrap(value, 'numerical'))


def wrap_images(clock):
    """Time nibabel's reading of voxels and writing of images."""
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.nifti1 import Nifti1Pair

    for method in ('__array__', '__getitem__', 'get_unscaled'):
        setattr(ArrayProxy, method, clock.wrap(getattr(ArrayProxy, method), 'reading'))
    Nifti1Pair.to_file_map = clock.wrap(Nifti1Pair.to_file_map, 'writing')


def watch_imports(clock):
    """Time imports, and wrap our modules and those of others once they are there."""
    plain, wrapped = builtins.__import__, set()

    def timed(name, globals=None, locals=None, fromlist=(), level=0):
        known = len(sys.modules)
        with clock.share('imports'):
            found = plain(name, globals, locals, fromlist, level)
        if len(sys.modules) != known and clock.stack[-1] != 'imports':
            for each in list(sys.modules):
                room = next((room for room in ROOMS if each.startswith(room)), None)
                if each not in wrapped and (room or each in ('ants', 'nibabel.arrayproxy')):
                    wrapped.add(each)
                    if room:
                        wrap_module(clock, sys.modules[each], ROOMS[room])
                    elif each == 'ants':
                        wrap_ants(clock)
                    else:
                        wrap_images(clock)
        return found

    builtins.__import__ = timed


def main(argv) -> int:
    clock = Clock()
    watch_imports(clock)
    from ctpprep.cli import main as ctpprep

    code = ctpprep([*argv[1:], '--nprocs', '1'])
    clock.turn('other')
    with open(argv[0], 'w') as stream:
        json.dump(clock.spent, stream)
    return code


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
