# SPDX-License-Identifier: Apache-2.0
"""Provenance records: how every output was computed."""
