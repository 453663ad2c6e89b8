# SPDX-License-Identifier: Apache-2.0
"""What the reference of the code shows: nipype interfaces with their ports, and nothing of other packages."""

import inspect
from collections.abc import Iterator

from nipype.interfaces.base import BaseInterface

SPECIFICATIONS = ('input_spec', 'output_spec')


def skip_member(app, what, name, defined, skip, options):
    """Leave out specifications, which are shown as ports, and classes that a module imports."""
    if name in SPECIFICATIONS:
        return True
    if inspect.isclass(defined) and not defined.__module__.startswith('ctpprep'):
        return True
    return None


def list_ports(title: str, specification: type) -> Iterator[str]:
    """Write the ports of a specification as a list."""
    traits = specification().traits(transient=None)
    ports = {name: trait for name, trait in traits.items() if not name.startswith('trait_')}
    if ports:
        yield from ('', f'**{title}**', '')
    for name, trait in ports.items():
        kind = type(trait.trait_type).__name__.lower()
        told = ', '.join([kind, *(['mandatory'] if trait.mandatory else [])])
        yield f'* ``{name}`` ({told})' + (f': {trait.desc}' if trait.desc else '')


def add_ports(app, what, name, defined, options, lines):
    """Append the ports of an interface to its docstring."""
    if what == 'class' and issubclass(defined, BaseInterface):
        for title, which in zip(('Inputs', 'Outputs'), SPECIFICATIONS, strict=True):
            if (specification := getattr(defined, which)) is not None:
                lines.extend(list_ports(title, specification))
        lines.append('')


def setup(app):
    """Listen to autodoc, after numpydoc."""
    app.connect('autodoc-skip-member', skip_member)
    app.connect('autodoc-process-docstring', add_ports, priority=900)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
