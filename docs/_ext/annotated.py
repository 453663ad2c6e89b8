# SPDX-License-Identifier: Apache-2.0
"""Pictures with numbered marks, and a list of what they point at.

::

    ```{annotated} ../demo-output/sub-01/figures/sub-01_desc-curves_ctp.svg
    :alt: Curves of artery, vein and tissue

    AIF: 12 voxels | Are the voxels on an artery?
    50% 20% | A place in the picture, from the left and from the top. An indented line
        continues the note.
    ```

Where an SVG contains the text before the bar, the mark is placed at that text, so that it follows
the layout of the figure; a text that is missing is an error.
"""

import re
from html import unescape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

# matplotlib places texts by x and y, or by a translation
TEXT = re.compile(r'<text[^>]*(?: x="|translate\()([-\d.]+)(?:" y="| )([-\d.]+)[^>]*>([^<]*)')
VIEW = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
PLACE = re.compile(r'([\d.]+)% ([\d.]+)%')


def find_place(anchor: str, svg: str) -> tuple[float, float]:
    """Return the place of a mark in percent of width and height.

    Raises
    ------
    ValueError
        If the anchor is neither a place nor part of a text of the picture.
    """
    if match := PLACE.fullmatch(anchor):
        return float(match[1]), float(match[2])
    for x, y, text in TEXT.findall(svg):
        if anchor in unescape(text):
            width, height = (float(size) for size in VIEW.search(svg).groups())
            return 100 * float(x) / width, 100 * float(y) / height
    raise ValueError(f'the picture has no text {anchor!r}')


class Annotated(SphinxDirective):
    """A picture with numbered marks above a list of notes."""

    required_arguments = 1
    has_content = True
    option_spec = {'alt': directives.unchanged_required}

    def run(self):
        (path,) = self.arguments
        source = Path(self.env.relfn2path(path)[1])
        svg = source.read_text(encoding='utf-8') if source.suffix == '.svg' else ''
        marks, notes = [], []
        for line in re.sub(r'\n[ ]+', ' ', '\n'.join(self.content)).splitlines():
            if not line.strip():
                continue
            anchor, _, note = (part.strip() for part in line.partition(' | '))
            try:
                left, top = find_place(anchor, svg)
            except ValueError as error:
                raise self.error(f'{path}: {error}') from error
            notes.append(f'{len(notes) + 1}. {note}')
            marks.append(f'<span style="left:{left:.1f}%;top:{top:.1f}%">{len(notes)}</span>')
        picture = nodes.container('', classes=['annotated'])
        picture += nodes.image('', uri=path, alt=self.options['alt'], width='100%')
        picture += nodes.raw('', ''.join(marks), format='html')
        return [picture, *self.parse_text_to_nodes('\n'.join(notes))]


def setup(app):
    """Register the directive."""
    app.add_directive('annotated', Annotated)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
