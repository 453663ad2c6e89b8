# SPDX-License-Identifier: Apache-2.0
"""The border to files and to antspyx: one nipype interface a node."""
