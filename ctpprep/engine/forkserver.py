# SPDX-License-Identifier: Apache-2.0
"""First import of the fork server, and of nothing else: the server must end with the run.

Otherwise it lives as long as its workers, and a worker whose registration keeps Python's lock
lives until the registration has ended.
"""

from ctpprep.io.processes import die_with_parent

die_with_parent()
