# SPDX-License-Identifier: Apache-2.0
"""Find and validate the input: series, precomputed maps, and files of the user."""
