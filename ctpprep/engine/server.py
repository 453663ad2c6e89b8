# SPDX-License-Identifier: Apache-2.0
"""What the server of forks imports first, and nobody else: it is to die with the run.

Without, it lives as long as its workers do, and a worker in which a registration holds Python's
lock lives until that is over.
"""

from ctpprep.engine.processes import die_with_parent

die_with_parent()
