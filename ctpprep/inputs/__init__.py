# SPDX-License-Identifier: Apache-2.0
"""What is read: series, precomputed maps, and files of the user in place of a step."""
