# SPDX-License-Identifier: Apache-2.0
"""The report of a participant: `page` builds it, `methods` sets its text and references.

`citation` writes the same for a paper.
"""

from ctpprep.reports.citation import write_citation
from ctpprep.reports.page import Drawing, build_report

__all__ = ['Drawing', 'build_report', 'write_citation']
