# SPDX-License-Identifier: Apache-2.0
"""The science: arrays in, arrays out."""
