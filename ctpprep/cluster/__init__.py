# SPDX-License-Identifier: Apache-2.0
"""Array jobs on a SLURM cluster: a script for login nodes, and the task that it submits.

Both files also work without the package; ``ctpprep-cluster copy DIR`` copies them.
"""
