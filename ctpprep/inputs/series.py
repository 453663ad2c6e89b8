# SPDX-License-Identifier: Apache-2.0
"""What can be processed: a CT perfusion series, or precomputed maps."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctpprep.inputs.dataset import (
    InputFile,
    workflow_name,
)
from ctpprep.inputs.precomputed import PrecomputedMaps


@dataclass(frozen=True)
class CTPSeries:
    """A CT perfusion series that can be processed.

    Attributes
    ----------
    path : Path
        The 4D NIfTI file.
    prefix : str
        Its name without the suffix, such as 'sub-01_ses-1_run-2'.
    participant, session : str, str or None
        Labels without 'sub-' and 'ses-'.
    out_subdir : str
        Folder of its derivatives, such as 'sub-01/ses-1/ct'.
    uri : str
        BIDS URI, such as 'bids:raw:sub-01/ct/sub-01_ctp.nii.gz'.
    frame_times : tuple of float
        Start of each of the T frames in s, on the clock of the source.
    sample_times : tuple of tuple of float
        (Z, T) acquisition times in s; row 0 is the most inferior slice.
    timing_source : str
        Where the times come from, such as 'RepetitionTime + SliceTiming'.
    sidecar : dict
        Metadata of the series, inherited values included.
    ncct : Path or None
        Non-contrast CT of the same session.
    overrides : dict of str to InputFile
        Files of the user in place of a step, by the name of what the step puts out.
    shape : tuple of int
        (X, Y, Z) of the file; slices are last.
    voxel_size_mm : tuple of float
        Of the file, mm.
    """

    path: Path
    prefix: str
    participant: str
    session: str | None
    out_subdir: str
    uri: str
    frame_times: tuple[float, ...]
    sample_times: tuple[tuple[float, ...], ...]
    timing_source: str
    sidecar: dict[str, Any]
    ncct: Path | None = None
    overrides: dict[str, InputFile] = dataclasses.field(default_factory=dict)
    shape: tuple[int, ...] = ()
    voxel_size_mm: tuple[float, ...] = ()

    @property
    def workflow_name(self) -> str:
        """Name of the series' workflow, such as 'sub_01_ses_1_wf'."""
        return workflow_name(self.prefix)

    @property
    def source(self) -> InputFile:
        """The series that is read: the raw one, or a corrected one that replaces it."""
        return self.overrides.get('ctp_corrected', InputFile(self.path, self.uri))


# what can be processed
Series = CTPSeries | PrecomputedMaps
