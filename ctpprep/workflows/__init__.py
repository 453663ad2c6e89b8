# SPDX-License-Identifier: Apache-2.0
"""The graph: one small builder a stage."""
