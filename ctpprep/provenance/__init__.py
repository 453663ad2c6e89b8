# SPDX-License-Identifier: Apache-2.0
"""Recording how every output came to be, and reading that record."""
