# SPDX-License-Identifier: Apache-2.0
"""Running the graph: processes, schedulers, hashes, progress, crash files."""
