# SPDX-License-Identifier: Apache-2.0
"""What `find_series` returns for a scan: a CT perfusion series, precomputed maps, or a failure.

::

    SeriesBase              name and folder of a scan, and what can be done with it
    ├── CTPSeries           a 4D series, processed from its frames
    ├── PrecomputedMaps     perfusion maps of other software, processed from the normalization on
    └── FailedSeries        neither can be read; contains the reason

Callers ask the object for a capability, such as ``series.can_run`` or ``series.has_frames``, not
for its class. Both are literals, so a type checker narrows the union where they are tested.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ctpprep.io.bids import bids_uri, entities


@dataclass(frozen=True)
class InputFile:
    """A file that is read, and its BIDS URI."""

    path: Path
    uri: str


@dataclass(frozen=True)
class FollowUpLesion:
    """The lesion of a later session, and how it gets to the grid of the series.

    Attributes
    ----------
    mask : InputFile
        Lesion mask.
    session : str
        Label of its session, without 'ses-'; '' for a file of an option whose name has none.
    space : {'ncct', 'image', 'series', ''}
        ``ncct``: that of the non-contrast CT; ``image``: that of `image`, which is registered;
        ``series``: patient coordinates of the series or the maps; '' if it cannot be aligned.
    image : InputFile or None
        DWI, ADC or FLAIR image of the same session and space.
    left_out : str
        Why the mask cannot be aligned, as one sentence.
    """

    mask: InputFile
    session: str
    space: str
    image: InputFile | None = None
    left_out: str = ''

    @property
    def files(self) -> dict[str, InputFile]:
        """The files that are read, by the ports that read them."""
        files = {'lesion_mask': self.mask}
        return files | ({'lesion_image': self.image} if self.image is not None else {})


def workflow_name(prefix: str) -> str:
    """Name a workflow after a series or a participant.

    Examples
    --------
    >>> workflow_name('sub-01_ses-1')
    'sub_01_ses_1_wf'
    """
    return prefix.replace('-', '_').replace('+', '_plus_') + '_wf'


class SeriesBase:
    """Attributes that every scan has.

    Attributes
    ----------
    prefix : str
        Start of the names of its outputs, such as 'sub-01_ses-1_run-2'.
    participant, session : str, str or None
        Labels without 'sub-' and 'ses-'.
    can_run : bool
        Whether it can be processed.
    has_frames : bool
        Whether it is a 4D series, with time-attenuation curves, frame times and noise.
    """

    prefix: str
    participant: str
    session: str | None
    can_run: ClassVar[bool]
    has_frames: ClassVar[bool]

    @property
    def workflow_name(self) -> str:
        """Name of the workflow, such as 'sub_01_ses_1_wf'."""
        return workflow_name(self.prefix)

    @property
    def absent(self) -> bool:
        """Whether a requested participant has neither a series nor maps."""
        return False


@dataclass(frozen=True)
class FailedSeries(SeriesBase):
    """A series or a set of maps that cannot be processed.

    Attributes
    ----------
    prefix, participant, session : str, str, str or None
        As for `SeriesBase`.
    reason : str
        Why it cannot be processed, as one sentence.
    absent : bool
        Whether a requested participant has neither a series nor maps.
    """

    prefix: str
    participant: str
    session: str | None
    reason: str
    absent: bool = False
    can_run: ClassVar[Literal[False]] = False
    has_frames: ClassVar[Literal[False]] = False

    @classmethod
    def from_file(cls, prefix: str, path: Path, bids_dir: Path, reason: object) -> 'FailedSeries':
        """Describe the failure of the scan that a file belongs to.

        Parameters
        ----------
        prefix : str
        path : Path
            In the folder of the participant; its name need not follow BIDS.
        bids_dir : Path
        reason : object
            An error or its message.
        """
        participant = path.relative_to(bids_dir).parts[0].removeprefix('sub-')
        reason = ' '.join(str(reason).split())  # a name of a file may contain line breaks
        return cls(prefix, participant, entities(path).get('ses'), reason)

    @property
    def out_subdir(self) -> str:
        """Folder of the outputs of earlier runs, below the output folder."""
        session = f'ses-{self.session}/' if self.session else ''
        return f'sub-{self.participant}/{session}ct'


@dataclass(frozen=True)
class CTPSeries(SeriesBase):
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
        Non-contrast CT of the same session, which is registered to the series.
    overrides : dict of str to InputFile
        Files of the user that replace a step, by the output of that step.
    shape : tuple of int
        (X, Y, Z) of the file; slices are last.
    voxel_size_mm : tuple of float
        Of the file, mm.
    affine_from : str
        'sform' or 'qform', which the user has chosen for all images; 'agree' if both affines of
        each must place its voxels alike.
    lesion : FollowUpLesion or None
        Lesion of a later session, with which the maps are compared.
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
    overrides: dict[str, InputFile] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    voxel_size_mm: tuple[float, ...] = ()
    affine_from: str = 'agree'
    lesion: FollowUpLesion | None = None
    can_run: ClassVar[Literal[True]] = True
    has_frames: ClassVar[Literal[True]] = True
    is_relative: ClassVar[Literal[False]] = False
    # the mean of its own frames before contrast is mirrored
    reference_kind: ClassVar[str] = 'ctpref'

    @property
    def source(self) -> InputFile:
        """The series that is read: the raw one, or the corrected one that replaces it."""
        return self.overrides.get('ctp_corrected', InputFile(self.path, self.uri))

    @property
    def files(self) -> dict[str, InputFile]:
        """Every file that is read, by its content."""
        files = self.overrides | {'ctp': self.source}
        if self.ncct is not None:
            bids_dir = self.path.parents[self.uri.count('/')]
            uri = bids_uri('raw', self.ncct.relative_to(bids_dir))
            files['ncct'] = InputFile(self.ncct, uri)
        return files | (self.lesion.files if self.lesion else {})

    @property
    def quantities(self) -> tuple[str, ...]:
        """The maps that are normalized."""
        return ('rcbf', 'rcbv')


@dataclass(frozen=True)
class PrecomputedMaps(SeriesBase):
    """Perfusion maps of one scan that other software computed.

    Attributes
    ----------
    prefix : str
        Start of the outputs' names, such as 'sub-01_ses-1', without the ``space-`` entity.
    participant, session : str, str or None
        Labels without 'sub-' and 'ses-'.
    out_subdir : str
        Folder of its derivatives, such as 'sub-01/ses-1/ct'.
    space : str
        Label of the ``space-`` entity of the maps; '' if their names have none.
    maps : dict of str to InputFile
        By quantity: ``tmax``, ``cbf`` or ``rcbf``, and optionally ``cbv``, ``mtt``, ``ttp``.
    units : dict of str to str
        Units of each map from its sidecar; '' if the sidecar has none.
    reference : InputFile or None
        CT image whose mirror image is registered.
    reference_kind : {'ctpref', 'ncct', ''}
        Mean image of a series before contrast, a non-contrast CT, or none.
    masks : dict of str to InputFile
        ``brain_mask`` and ``tissue_mask``, if they exist.
    n_voxels : int
        Of each map.
    affine_from : str
        As for `CTPSeries`.
    lesion : FollowUpLesion or None
        Lesion of a later session, with which the maps are compared.
    """

    prefix: str
    participant: str
    session: str | None
    out_subdir: str
    space: str
    maps: dict[str, InputFile]
    units: dict[str, str]
    reference: InputFile | None = None
    reference_kind: str = ''
    masks: dict[str, InputFile] = field(default_factory=dict)
    n_voxels: int = 0
    affine_from: str = 'agree'
    lesion: FollowUpLesion | None = None
    can_run: ClassVar[Literal[True]] = True
    has_frames: ClassVar[Literal[False]] = False
    # a non-contrast CT on the grid of the maps is their reference; none is registered to them
    ncct: ClassVar[None] = None
    timing_source: ClassVar[str] = 'maps made elsewhere'

    @property
    def is_relative(self) -> bool:
        """Whether CBF is available only relative to a reference."""
        return 'cbf' not in self.maps

    relative = is_relative

    @property
    def flow(self) -> str:
        """Name of the flow map that is used, 'cbf' or 'rcbf'."""
        return 'rcbf' if self.is_relative else 'cbf'

    @property
    def files(self) -> dict[str, InputFile]:
        """Every file that is read, by its content."""
        reference = {'reference': self.reference} if self.reference else {}
        lesion = self.lesion.files if self.lesion else {}
        return self.maps | self.masks | reference | lesion

    @property
    def overrides(self) -> dict[str, InputFile]:
        """Files that replace a step: all but those of the follow-up."""
        lesion = self.lesion.files if self.lesion else {}
        return {name: file for name, file in self.files.items() if name not in lesion}

    @property
    def quantities(self) -> tuple[str, ...]:
        """The maps that are normalized."""
        return ('rcbf', 'rcbv') if 'cbv' in self.maps else ('rcbf',)


# what can be processed, and what `find_series` returns
Series = CTPSeries | PrecomputedMaps
FoundSeries = Series | FailedSeries
