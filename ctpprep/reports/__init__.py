# SPDX-License-Identifier: Apache-2.0
"""The report of a participant, made from the files in the output folder.

`page` builds it from `sections`, one per series, which contain `volumes`, `quality`, `figures` and
`viewer`; `methods` renders the text and its references, `citation` writes the same for a paper.
"""

from ctpprep.reports.citation import write_citation
from ctpprep.reports.page import Drawing, build_report

__all__ = ['Drawing', 'build_report', 'write_citation']
