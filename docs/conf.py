# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds these pages (make docs). Decision 0027 has the reasons."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / '_ext'))
# niworkflows would look for templates over the network (ctpprep/cli does the same)
os.environ.setdefault('TEMPLATEFLOW_AUTOUPDATE', '0')
os.environ.setdefault('NO_ET', '1')

from ctpprep import __version__  # noqa: E402

project = 'ctpprep'
author = 'The ctpprep developers'
copyright = author
release = __version__
version = release.partition('+')[0]

extensions = [
    'matplotlib.sphinxext.plot_directive',
    'myst_parser',
    'numpydoc',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.viewcode',
    'sphinx_argparse_cli',
    'annotated',
    'graphs',
    'links',
    'mathml',
    'reference',
]
exclude_patterns = ['_build', '_ext', '_static', '_templates']
templates_path = ['_templates']
nitpicky = True
# names in backticks lead to their reference where there is one; constants have none
nitpick_ignore_regex = [('py:obj', r'.*')]
show_warning_types = True
smartquotes = False  # two dashes begin an option

myst_heading_anchors = 3
myst_links_external_new_tab = False

# numpydoc tells the types; a class is documented by its own page, not by tables of stubs
autodoc_typehints = 'none'
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
add_module_names = False
default_role = 'autolink'  # a name in backticks leads to its reference, if it has one
toc_object_entries_show_parents = 'hide'

# the code of python.md is run, with its figures
plot_formats = [('png', 110)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_working_directory = str(HERE)

html_theme = 'furo'
html_title = f'ctpprep {version}'
html_static_path = ['_static']
html_css_files = ['docs.css']
html_copy_source = False
html_math_renderer = 'mathml'
# a page of the demo and one of a cohort of made-up volumes, to be opened beside the text
html_extra_path = ['../demo-output/sub-01.html', '_build/cohort/group.html']
