# SPDX-License-Identifier: Apache-2.0
"""The report of a participant, made from the files in the output folder.

`page` renders it from `sections`, one per series, which are read by `tables`, `quality`, `sidecars` and
`viewer`; `template` formats numbers, `inline` embeds scripts, `graph` draws the workflow. `methods`
renders the methods text and its references, `citation` writes them for a paper.
"""

from ctpprep.reports.citation import write_citation
from ctpprep.reports.page import Drawing, build_report

__all__ = ['Drawing', 'build_report', 'write_citation']
