# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms of frames as ITK text."""

from pathlib import Path

import numpy as np

from ctpprep.io.transforms import write_rigid_transforms


def rotation(degrees, shift):
    """Return a rotation about the vertical axis, followed by a shift in mm."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(4)
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    matrix[:3, 3] = shift
    return matrix


def test_text_has_twelve_digits_and_lps_coordinates(tmp_path):
    path = write_rigid_transforms(
        [np.eye(4), rotation(30, [1.5, -2.25, 1e-7])], tmp_path / 'frames.txt'
    )
    assert Path(path).read_bytes() == (
        b'#Insight Transform File V1.0\n'
        b'#Transform 0\n'
        b'Transform: AffineTransform_double_3_3\n'
        b'Parameters: 1 0 0 0 1 0 0 0 1 0 0 0\n'
        b'FixedParameters: 0 0 0\n'
        b'#Transform 1\n'
        b'Transform: AffineTransform_double_3_3\n'
        b'Parameters: 0.866025403784 -0.5 0 0.5 0.866025403784 0 0 0 1 -1.5 2.25 1e-07\n'
        b'FixedParameters: 0 0 0\n'
    )


def test_path_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_rigid_transforms([np.eye(4)], 'frames.txt') == str(tmp_path / 'frames.txt')
