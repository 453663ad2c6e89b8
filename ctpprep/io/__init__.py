# SPDX-License-Identifier: Apache-2.0
"""Files: formats, names, atomic writes."""
