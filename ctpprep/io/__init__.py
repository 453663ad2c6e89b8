# SPDX-License-Identifier: Apache-2.0
"""Read and write files: formats, BIDS names, atomic writes."""
