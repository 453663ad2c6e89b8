# SPDX-License-Identifier: Apache-2.0
"""Bad inputs as a table: what makes the input bad, and what a user is told.

Each case spoils the series of one participant. With a sentence, the series is refused and the command
exits with 1; with `WARNED` in front of it, the series is accepted with that warning; without, accepted.
"""

import gzip
import os
import shutil
import socket
from typing import NamedTuple

import nibabel as nb
import numpy as np
from scipy import ndimage

from tests.bad_inputs.heads import (
    Spoil,
    as_float,
    as_type,
    both_forms,
    compressed,
    content,
    fields,
    flip_bits,
    forms,
    header,
    in_turn,
    instead_of_image,
    instead_of_sidecar,
    remade,
    renamed,
    scaled,
    shifted,
    sidecar_text,
    turned,
    voxels,
)

N_FRAMES, N_SLICES = 18, 6


class Case(NamedTuple):
    """A spoiled series, the part of the sentence that names the cause, and whether it is refused."""

    name: str
    spoil: Spoil
    sentence: str = ''
    refused: bool = True


def accepted(name: str, spoil: Spoil, warning: str = '') -> Case:
    return Case(name, spoil, warning, refused=False)


def frame_times(start: float = 0.0, step: float = 2.0) -> list[float]:
    return [round(start + step * frame, 6) for frame in range(N_FRAMES)]


def slice_times(times: list[float], upper: float = 0.0) -> list[list[float]]:
    """Date the slices of each frame; the upper half is late."""
    return [[time + upper * (z >= N_SLICES / 2) for z in range(N_SLICES)] for time in times]


def bind_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


NESTED = '{"a": ' + '[' * 200_000 + ']' * 200_000 + '}'
FILL = {'RepetitionTime': None}
TIMES = fields  # reads better where the fields are times

SIDECARS = [
    Case('nested json', sidecar_text(NESTED), 'the sidecar sub-nestedjson_ctp.json'),
    Case('nested objects', sidecar_text('{"a":' * 99_999 + '1' + '}' * 99_999), 'nested'),
    Case('unclosed nesting', sidecar_text('[' * 200_000), 'the sidecar'),
    Case('401 digits', fields(RepetitionTime=int('9' * 401)), 'RepetitionTime'),
    Case('5000 digits', sidecar_text('{"RepetitionTime": ' + '9' * 5000 + '}'), 'the sidecar'),
    Case('digits in a list', fields(RepetitionTime=None, VolumeTiming=[10**400] * N_FRAMES),
         'VolumeTiming'),
    Case('huge offset', fields(SliceTiming=[0, 0, 0, 0, 0, 10**401]), 'SliceTiming'),
    Case('pipe as sidecar', instead_of_sidecar(os.mkfifo), 'is a named pipe'),
    Case('socket as sidecar', instead_of_sidecar(bind_socket), 'is a socket'),
    accepted('folder as sidecar', instead_of_sidecar(lambda path: path.mkdir())),
    Case('device as sidecar', instead_of_sidecar(lambda path: path.symlink_to('/dev/zero')),
         'is a device'),
    Case('loop as sidecar', instead_of_sidecar(lambda path: path.symlink_to(path.name)),
         'the sidecar'),
    Case('missing annex sidecar', instead_of_sidecar(lambda path: path.symlink_to('/gone/key')),
         'the sidecar'),
    Case('long sidecar', sidecar_text('{"a": "' + 'x' * 40_000_000 + '"}'), 'MB'),
    Case('empty sidecar', sidecar_text(''), 'cannot be read as JSON'),
    Case('half a sidecar', sidecar_text('{"RepetitionTime": 2.0, "Uni'), 'cannot be read as JSON'),
    Case('utf-16 sidecar', sidecar_text('{"RepetitionTime": 2.0}'.encode('utf-16')),
         'cannot be read as JSON'),
    Case('zip as sidecar', sidecar_text(b'PK\x03\x04\x00\x00\xff\xfe'), 'cannot be read as JSON'),
    Case('list as sidecar', sidecar_text('[{"RepetitionTime": 2.0}]'), 'a JSON list'),
    Case('null as sidecar', sidecar_text('null'), 'a JSON NoneType'),
    Case('text as sidecar', sidecar_text('"RepetitionTime"'), 'a JSON str'),
    Case('field twice', sidecar_text('{"RepetitionTime": 2.0, "RepetitionTime": 4.0}'),
         'contains RepetitionTime twice'),
    accepted('field twice alike', sidecar_text('{"RepetitionTime": 2.0, "RepetitionTime": 2.0}')),
    accepted('byte order mark', sidecar_text(b'\xef\xbb\xbf{"RepetitionTime": 2.0}')),
    accepted('null bytes in text', fields(Manufacturer='a\x00b')),
    accepted('markup in text', fields(Manufacturer='<script>alert(1)</script>')),
    Case('units of flow', fields(Units='mL/100 g/min'), 'Units is "mL/100 g/min"'),
    Case('units a list', fields(Units=['HU']), 'Units is'),
    Case('units a number', fields(Units=5), 'Units is "5"'),
    Case('modality MR', fields(Modality='MR'), 'Modality is "MR"'),
    Case('modality PET', fields(Modality='PT'), 'Modality is "PT"'),
    Case('magnetic field', fields(MagneticFieldStrength=3), 'MagneticFieldStrength'),
    accepted('units with a blank', fields(Units='HU ')),
    accepted('units in full', fields(Units='Hounsfield units')),
    accepted('modality in small letters', fields(Modality='ct')),
    accepted('magnetic field of 0', fields(MagneticFieldStrength=0)),
    Case('field in small letters', sidecar_text('{"repetitionTime": 2.0}'), '"RepetitionTime"'),
    Case('field with a blank', sidecar_text('{"RepetitionTime ": 2.0}'), '"RepetitionTime"'),
    Case('field with underscores', fields(Volume_timing=[0, 1, 2]), '"VolumeTiming"'),
    Case('modality a number', fields(Modality=7), 'Modality is "7"'),
]  # fmt: skip

TIMING = [
    *(
        Case(f'interval {name}', sidecar_text(f'{{"RepetitionTime": {value}}}'), 'RepetitionTime')
        for name, value in {
            'text': '"2.0"', 'nan': 'NaN', 'infinite': 'Infinity', 'negative': '-2', 'zero': '0',
            'huge': '1e308', 'overflow': '1e999', 'list': '[2.0]', 'object': '{}', 'true': 'true',
            'in ms': '2000', 'tiny': '1e-300', 'minutes': '60',
        }.items()
    ),
    Case('no interval', in_turn(header(pixdim=(4, 0)), fields(RepetitionTime=None)),
         'no acquisition times'),
    Case('default interval', in_turn(header(pixdim=(4, 1)), fields(RepetitionTime=None)),
         'pixdim[4]'),
    Case('interval without unit', in_turn(header(xyzt_units=2), fields(RepetitionTime=None)),
         'no acquisition times'),
    Case('interval nan in header', in_turn(header(pixdim=(4, np.nan)), fields(RepetitionTime=None)),
         'no acquisition times'),
    accepted('default beside sidecar', header(pixdim=(4, 1))),
    accepted('zero beside sidecar', header(pixdim=(4, 0))),
    accepted('negative beside sidecar', header(pixdim=(4, -1))),
    accepted('ms beside sidecar', header(pixdim=(4, 2000), xyzt_units=2 | 16)),
    Case('double interval', fields(RepetitionTime=4.0), 'pixdim[4]'),
    Case('half interval', fields(RepetitionTime=1.0), 'pixdim[4]'),
    Case('other header interval', header(pixdim=(4, 3.4)), '--frame-interval'),
    Case('times against header', fields(RepetitionTime=None, VolumeTiming=frame_times(step=3)),
         'pixdim[4]'),
    Case('two intervals', in_turn(header(pixdim=(4, 0)),
        fields(FrameTimesStart=frame_times(step=1.5), RepetitionTime=3.0)), 'RepetitionTime 3 s'),
    accepted('uneven times', fields(
        RepetitionTime=None, VolumeTiming=[*range(0, 24, 2), *range(24, 48, 4)])),
    Case('both fields', fields(VolumeTiming=frame_times()), 'both VolumeTiming and RepetitionTime'),
    Case('one time short', fields(RepetitionTime=None, VolumeTiming=frame_times()[1:]), '17 values'),
    Case('one time more', fields(RepetitionTime=None, VolumeTiming=[*frame_times(), 36]),
         '19 values'),
    Case('times backwards', fields(RepetitionTime=None, VolumeTiming=frame_times()[::-1]),
         'must increase'),
    Case('times all alike', fields(RepetitionTime=None, VolumeTiming=[1.0] * N_FRAMES),
         'must increase'),
    Case('time twice', fields(RepetitionTime=None, VolumeTiming=[0.0, *frame_times()[:-1]]),
         'must increase'),
    Case('times as text', fields(RepetitionTime=None, VolumeTiming=['0'] * N_FRAMES),
         'VolumeTiming contains'),
    Case('times nested', fields(RepetitionTime=None, VolumeTiming=[[0]] * N_FRAMES),
         'VolumeTiming contains'),
    Case('times an object', fields(RepetitionTime=None, VolumeTiming={'0': 1}), 'VolumeTiming has'),
    Case('times of null', fields(RepetitionTime=None, VolumeTiming=[None] * N_FRAMES),
         'VolumeTiming contains'),
    Case('times in ms', fields(RepetitionTime=None, VolumeTiming=frame_times(step=2000)),
         'write 2000 ms as 2'),
    Case('DICOM times', fields(RepetitionTime=None, VolumeTiming=[
        float(f'1059{30 + 2 * frame:02d}') if frame < 15 else float(f'1100{2 * frame - 30:02d}')
        for frame in range(N_FRAMES)]), 'hhmmss'),
    accepted('unix seconds', fields(RepetitionTime=None, VolumeTiming=frame_times(1.7e9))),
    accepted('seconds of the day', fields(RepetitionTime=None, VolumeTiming=frame_times(47_000))),
    accepted('times from 5 s', fields(RepetitionTime=None, VolumeTiming=frame_times(5))),
    Case('past midnight', fields(RepetitionTime=None, VolumeTiming=[
        (86_380 + t) % 86_400 for t in frame_times()]), 'must increase'),
    Case('times beyond bounds', fields(RepetitionTime=None, VolumeTiming=frame_times(1e18, 2e6)),
         'VolumeTiming'),
    Case('negative offsets', fields(SliceTiming=[0, -1, 0, 0, 0, 0]), 'negative'),
    Case('too many offsets', fields(SliceTiming=[0] * 7), 'SliceTiming has 7 values'),
    Case('offsets in ms', fields(SliceTiming=[0, 0, 0, 1000, 1000, 1000]), 'write 1000 ms as 1'),
    Case('offsets nan', sidecar_text('{"RepetitionTime": 2, "SliceTiming": [0,0,0,0,0,NaN]}'),
         'SliceTiming contains nan'),
    Case('slice direction', fields(SliceTiming=[0] * 6, SliceEncodingDirection='i'),
         'SliceEncodingDirection'),
    Case('slice direction a list', fields(SliceTiming=[0] * 6, SliceEncodingDirection=['k']),
         'SliceEncodingDirection'),
    Case('two lists of times', fields(RepetitionTime=None, VolumeTiming=frame_times(),
        FrameTimesStart=frame_times(step=3)), 'VolumeTiming and FrameTimesStart differ'),
    Case('acquisition against interval', fields(
        RepetitionTime=3.5, SliceAcquisitionTimes=slice_times(frame_times())), 'RepetitionTime 3.5 s'),
    Case('acquisition against header', fields(
        RepetitionTime=None, SliceAcquisitionTimes=slice_times(frame_times(step=4))), 'pixdim[4]'),
    Case('acquisition against times', fields(RepetitionTime=None, VolumeTiming=frame_times(step=3),
        SliceAcquisitionTimes=slice_times(frame_times())), 'SliceAcquisitionTimes and VolumeTiming'),
    Case('upper slices a frame later', fields(RepetitionTime=None,
        SliceAcquisitionTimes=slice_times(frame_times(), 6)), '6 s apart'),
    accepted('upper slices half a frame later', fields(RepetitionTime=None,
        VolumeTiming=frame_times(1), SliceAcquisitionTimes=slice_times(frame_times(), 1))),
    Case('acquisition rows', fields(SliceAcquisitionTimes=[[0] * 6] * 3), 'has 3 rows'),
    Case('acquisition columns', fields(SliceAcquisitionTimes=[[0] * 5] * N_FRAMES), 'has 5 values'),
    Case('acquisition of null', fields(SliceAcquisitionTimes=[None] * N_FRAMES),
         'SliceAcquisitionTimes'),
    Case('acquisition overflow', fields(SliceAcquisitionTimes=[[10**400] * 6] * N_FRAMES),
         'SliceAcquisitionTimes'),
]  # fmt: skip


def extended(ctp: np.ndarray, affine: np.ndarray, head: nb.Nifti1Header) -> nb.Nifti1Image:
    """Make an image with 5 kB of comment between header and voxels."""
    image = nb.Nifti1Image(ctp, affine, head)
    image.header.extensions.append(nb.nifti1.Nifti1Extension('comment', b'x' * 5000))
    return image


def reordered(axes: str) -> Spoil:
    """Reorder the voxel axes of a series, with its affine."""

    def make(ctp: np.ndarray, affine: np.ndarray, head: nb.Nifti1Header) -> nb.Nifti1Image:
        order = nb.orientations.ornt_transform(
            nb.io_orientation(affine), nb.orientations.axcodes2ornt(axes)
        )
        moved = affine @ nb.orientations.inv_ornt_aff(order, ctp.shape[:3])
        return nb.Nifti1Image(nb.apply_orientation(ctp, order), moved)

    return remade(make)


HEADERS = [
    Case('no magic', header(magic=b'xxxx'), 'NIfTI'),
    accepted('header size', header(sizeof_hdr=12)),
    accepted('7 dimensions', header(dim=(0, 7))),
    *(
        Case(f'{n} dimensions'.replace('-', 'minus '), header(dim=(0, n)), 'D' if n in range(1, 8) else '')
        for n in (0, 1, 2, 3, 8, -1, 32767)
    ),
    Case('negative width', header(dim=(1, -44)), ''),
    Case('no width', header(dim=(1, 0)), ''),
    Case('no frames', header(dim=(4, 0)), ''),
    Case('negative frames', header(dim=(4, -18)), ''),
    Case('huge width', header(dim=(1, 32767)), 'truncated'),
    Case('huge image', header(dim=np.array([4, 32767, 32767, 32767, 32767, 1, 1, 1])), 'truncated'),
    Case('more frames', header(dim=(4, 19)), 'truncated'),
    Case('fewer frames', header(dim=(4, 5)), 'has 5 frames, need at least 10'),
    Case('one frame less', header(dim=(4, 17)), 'longer'),
    Case('unknown type', header(datatype=999), ''),
    Case('no type', header(datatype=0), ''),
    Case('type bits', header(datatype=1), ''),
    Case('complex', header(datatype=32, dim=(4, 12)), ''),
    Case('colours', header(datatype=128, dim=(4, 12)), ''),
    accepted('bitpix', header(bitpix=8)),
    Case('wider type', header(datatype=64, bitpix=64), 'truncated'),
    Case('negative offset', header(vox_offset=-100), ''),
    Case('offset in the header', header(vox_offset=100), ''),
    Case('offset beyond', header(vox_offset=1e9), 'truncated'),
    Case('offset infinite', header(vox_offset=np.inf), ''),
    Case('offset nan', header(vox_offset=np.nan), ''),
    accepted('slope infinite', header(scl_slope=np.inf, scl_inter=0)),
    accepted('slope nan', header(scl_slope=np.nan, scl_inter=np.nan)),
    Case('slope huge', header(scl_slope=1e30, scl_inter=0), 'HU'),
    Case('slope tiny', header(scl_slope=1e-30, scl_inter=0), 'HU'),
    Case('slope negative', header(scl_slope=-1, scl_inter=0), 'HU'),
    Case('intercept infinite', header(scl_slope=1, scl_inter=np.inf), 'invalid intercept'),
    Case('intercept nan', header(scl_slope=1, scl_inter=np.nan), 'invalid intercept'),
    Case('intercept huge', header(scl_slope=1, scl_inter=1e20), 'HU'),
    *(Case(f'length unit {n}', header(xyzt_units=n | 8), 'xyzt_units') for n in (1, 3, 4, 5, 6, 7)),
    *(Case(f'time unit {n}', in_turn(header(xyzt_units=2 | n), fields(RepetitionTime=None)),
           'acquisition times') for n in (32, 40, 48)),
    Case('time unit unknown', in_turn(header(xyzt_units=2 | 56), fields(RepetitionTime=None)), ''),
    Case('no orientation', header(qform_code=0, sform_code=0), 'no orientation'),
    Case('sform nan', header(srow_x=(0, np.nan)), 'sform'),
    Case('sform infinite', header(srow_y=(3, np.inf)), 'sform'),
    Case('sform zero', header(srow_z=np.zeros(4)), ''),
    Case('sform of one plane', header(srow_x=np.array([0, 4, 0, 0]), qform_code=0), ''),
    Case('quaternion nan', header(quatern_b=np.nan), ''),
    Case('quaternion beyond', header(quatern_b=5, quatern_c=5), ''),
    Case('voxel nan', in_turn(header(pixdim=(1, np.nan)), header(sform_code=0)), ''),
    Case('voxel zero', header(pixdim=(1, 0), sform_code=0), ''),
    accepted('voxel negative', header(pixdim=(2, -4), sform_code=0)),
    Case('voxel infinite', header(pixdim=(3, np.inf), sform_code=0), ''),
    Case('voxel huge', header(pixdim=(3, 1e30), sform_code=0), ''),
    Case('pixdim against sform', in_turn(header(qform_code=0), header(pixdim=(3, 24))), 'pixdim'),
    accepted('pixdim unset', header(qform_code=0, pixdim=np.array([1, 1, 1, 1, 2, 1, 1, 1]))),
    accepted('nifti 2', remade(nb.Nifti2Image)),
    accepted('other byte order', remade(
        lambda ctp, affine, _: nb.Nifti1Image(ctp, affine, nb.Nifti1Header(endianness='>')))),
    accepted('extension', remade(extended)),
    Case('extension too long', in_turn(remade(extended), content(
        lambda data: data[:352] + b'\xff\xff\x0f\0' + data[356:])), 'not a readable NIfTI file'),
    accepted('sform code 9', header(sform_code=9)),
    Case('both codes 9', header(sform_code=9, qform_code=9), 'no orientation'),
]  # fmt: skip


def more_slices(ctp: np.ndarray) -> np.ndarray:
    """Interpolate slices of half the distance."""
    return ndimage.zoom(ctp, (1, 1, 2, 1), order=1)


GEOMETRY = [
    Case('sform mirrored', forms(sform=scaled(-1, 1, 1)), '--affine-from'),
    Case('qform mirrored', forms(qform=scaled(-1, 1, 1)), '--affine-from'),
    Case('sform upside down', forms(sform=scaled(1, 1, -1)), '--affine-from'),
    Case('qform front to back', forms(qform=scaled(1, -1, 1)), '--affine-from'),
    *(Case(f'qform turned about {axis}', forms(qform=turned(10, axis)), '--affine-from')
      for axis in range(3)),
    Case('sform turned', forms(sform=turned(-10, 0)), '--affine-from'),
    Case('qform turned 4 degrees', forms(qform=turned(4)), '--affine-from'),
    Case('sform twice as large', forms(sform=scaled(2, 2, 2)), '--affine-from'),
    Case('qform half as large', forms(qform=scaled(0.5, 0.5, 0.5)), '--affine-from'),
    Case('sform wider', forms(sform=scaled(1.2, 1, 1)), '--affine-from'),
    Case('sform elsewhere', forms(sform=shifted(z=60)), '--affine-from'),
    Case('sform of a template', forms(sform=scaled(1.1, 1.1, 1.1), code=4), '--affine-from'),
    accepted('qform turned 0.1 degrees', forms(qform=turned(0.1))),
    accepted('qform shifted by 1 mm', forms(qform=shifted(x=1))),
    accepted('only the qform', header(sform_code=0)),
    accepted('only the sform', header(qform_code=0)),
    Case('identity', header(
        srow_x=np.eye(4)[0], srow_y=np.eye(4)[1], srow_z=np.eye(4)[2], qform_code=0), 'identity'),
    Case('identity both', in_turn(header(pixdim=np.array([1, 1, 1, 1, 2, 1, 1, 1]), quatern_b=0,
        quatern_c=0, quatern_d=0, qoffset_x=0, qoffset_y=0, qoffset_z=0, srow_x=np.eye(4)[0],
        srow_y=np.eye(4)[1], srow_z=np.eye(4)[2])), 'identity'),
    Case('slices 3 times as far', in_turn(voxels(more_slices), both_forms(scaled(1, 1, 3))), 'mm tall'),
    Case('twice as large', both_forms(scaled(2, 2, 2)), 'brain'),
    Case('0.7 of its size', both_forms(scaled(0.7, 0.7, 1)), 'brain'),
    Case('half of its size', both_forms(scaled(0.5, 0.5, 0.5)), 'brain'),
    Case('voxels in m', both_forms(scaled(1e-3, 1e-3, 1e-3)), 'voxel size'),
    Case('voxels in um', both_forms(scaled(1e3, 1e3, 1e3)), 'voxel size'),
    Case('coronal slices', both_forms(turned(90, 0)), 'need axial'),
    Case('sagittal slices', both_forms(turned(90, 1)), 'need axial'),
    accepted('axes LPI', reordered('LPI')),
    accepted('axes RPS', reordered('RPS')),
    Case('axes ASR', reordered('ASR'), 'reorder the voxel axes'),
    Case('axes SRA', reordered('SRA'), 'axes SRA'),
    accepted('tilted by 20 degrees', both_forms(turned(20, 0))),
    Case('time first', voxels(lambda ctp: np.moveaxis(more_slices(ctp), 3, 0)), 'axis, which must be time'),
    Case('time second', voxels(lambda ctp: np.moveaxis(more_slices(ctp), 3, 1)), 'axis, which must be time'),
    Case('slices and time exchanged', voxels(lambda ctp: more_slices(ctp).swapaxes(2, 3)),
         'axis, which must be time'),
    Case('frames in one volume', voxels(lambda ctp: ctp.reshape(44, 52, -1)), 'need a 4D series'),
    Case('one frame', voxels(lambda ctp: ctp[..., 0]), 'need a 4D series'),
    Case('five dimensions', voxels(lambda ctp: np.stack([ctp, ctp], -1)), 'need a 4D series'),
    accepted('five dimensions, one of them 1', voxels(lambda ctp: ctp[..., None])),
]  # fmt: skip


def bad_slice(ctp: np.ndarray, z: int = 3, value: float = -1024) -> np.ndarray:
    ctp = ctp.copy()
    ctp[:, :, z] = value
    return ctp


def repeated_slice(ctp: np.ndarray) -> np.ndarray:
    ctp = ctp.copy()
    ctp[:, :, 4] = ctp[:, :, 3]
    return ctp


def scattered(value: float, share: float):
    """Set a share of the voxels to a value."""

    def change(ctp: np.ndarray) -> None:
        ctp[np.random.default_rng(1).random(ctp.shape) < share] = value

    return change


def window(low: float, high: float, levels: int | None = None):
    """Clip to a window, and optionally stretch it over grey levels."""

    def change(ctp: np.ndarray) -> np.ndarray:
        clipped = np.clip(ctp.astype(float), low, high)
        return clipped if levels is None else np.round((clipped - low) / (high - low) * levels)

    return change


def as_mr(ctp: np.ndarray) -> np.ndarray:
    """T2*-weighted values: no signal in air and bone, which drops as contrast passes."""
    tissue = (ctp > -200) & (ctp < 600)
    noise = np.random.default_rng(2).integers(0, 20, ctp.shape)
    return np.where(tissue, 480 - 3 * np.clip(ctp - 34, -100, 100), 0) + noise


def pad_corners(ctp: np.ndarray) -> np.ndarray:
    """Pad outside of the circle of reconstruction."""
    x, y = np.ogrid[-1 : 1 : ctp.shape[0] * 1j, -1 : 1 : ctp.shape[1] * 1j]
    return np.where((np.hypot(x, y) > 1)[..., None, None], -3024, ctp)


DENSITY = [
    Case('half the HU', voxels(lambda ctp: ctp * 0.5, np.float32), 'HU'),
    Case('0.6 of the HU', voxels(lambda ctp: ctp * 0.6, np.int16), 'HU'),
    Case('twice the HU', voxels(lambda ctp: ctp * 2, np.int16), 'HU'),
    Case('ten times the HU', voxels(lambda ctp: ctp.astype(np.int32) * 10), 'HU'),
    Case('HU in thousands', voxels(lambda ctp: ctp / 1000.0, np.float32), 'HU'),
    Case('1024 too high', voxels(lambda ctp: ctp + 1024), '1024'),
    Case('1000 too high', voxels(lambda ctp: ctp + 1000), 'HU'),
    Case('1024 too low', voxels(lambda ctp: ctp - 1024), '1024'),
    Case('30 too low', voxels(lambda ctp: ctp - 30), 'HU'),
    Case('40 too high', voxels(lambda ctp: ctp + 40), 'HU'),
    Case('inverted', voxels(lambda ctp: -ctp), 'HU'),
    Case('clipped at 80', voxels(window(-1024, 80), np.int16), 'clipped at 80 HU'),
    Case('clipped at 100', voxels(window(-1024, 100), np.int16), 'clipped at 100 HU'),
    Case('window 0-80', voxels(window(0, 80), np.int16), 'clipped at 80 HU'),
    Case('window 0-100', voxels(window(0, 100), np.float32), 'clipped at 100 HU'),
    Case('window 0-300', voxels(window(0, 300), np.int16), 'clipped at 300 HU'),
    Case('window -100-300', voxels(window(-100, 300), np.int16), 'clipped at 300 HU'),
    Case('window of 8 bits', voxels(window(0, 100, 255), np.uint8), 'clipped at 255 HU'),
    Case('wide window of 8 bits', voxels(window(-200, 600, 255), np.uint8), 'clipped at 255 HU'),
    Case('fractions', voxels(lambda ctp: window(-100, 300)(ctp) / 400, np.float32), 'HU'),
    Case('MR values', voxels(as_mr, np.int16), 'HU'),
    Case('MR values in thousands', voxels(lambda ctp: as_mr(ctp) * 12, np.int16), 'HU'),
    Case('int16 as uint16', voxels(lambda ctp: ctp.astype(np.uint16)), 'unsigned'),
    Case('swapped bytes', voxels(lambda ctp: ctp.byteswap()), 'HU'),
    Case('all zero', voxels(lambda ctp: ctp * 0), 'every voxel is 0 HU'),
    Case('all air', voxels(lambda ctp: ctp * 0 - 1000), 'every voxel is -1000 HU'),
    Case('all nan', as_float(scattered(np.nan, 2)), 'is a number'),
    Case('noise', voxels(lambda ctp: np.random.default_rng(0).normal(0, 300, ctp.shape), np.int16),
         'HU'),
    Case('grey noise', voxels(lambda ctp: np.random.default_rng(0).integers(0, 100, ctp.shape),
         np.int16), 'HU'),
    Case('5 % infinite', as_float(scattered(np.inf, 0.05)), 'infinite'),
    Case('30 % infinite', as_float(scattered(-np.inf, 0.3)), 'infinite'),
    accepted('0.1 % infinite', as_float(scattered(np.inf, 1e-3)), 'are not finite'),
    accepted('0.1 % nan', as_float(scattered(np.nan, 1e-3)), 'are not finite'),
    Case('5 % nan', as_float(scattered(np.nan, 0.05)), 'NaN'),
    accepted('nan in the air', as_float(lambda ctp: ctp.__setitem__(ctp < -900, np.nan))),
    accepted('steps of 5 HU', voxels(lambda ctp: np.round(ctp / 5) * 5, np.int16)),
    Case('steps of 10 HU', voxels(lambda ctp: np.round(ctp / 10) * 10, np.int16), 'steps of 10 HU'),
    Case('stored in 8 bits', remade(
        lambda ctp, affine, _: as_type(nb.Nifti1Image(ctp.astype(float), affine), np.uint8)), 'steps of'),
    accepted('unsigned with an intercept', in_turn(
        voxels(lambda ctp: ctp + 2000, np.uint16), header(scl_slope=1, scl_inter=-2000))),
    accepted('double precision', voxels(lambda ctp: ctp.astype(np.float64))),
    accepted('padding of -3024', voxels(pad_corners)),
    accepted('black slice', voxels(bad_slice), 'slice 4 of 6'),
    accepted('slice of zeros', voxels(lambda ctp: bad_slice(ctp, value=0)), 'slice 4 of 6'),
    accepted('repeated slice', voxels(repeated_slice), 'slice 5 of 6'),
    Case('slices exchanged', voxels(lambda ctp: ctp[:, :, [0, 4, 2, 3, 1, 5]]), 'slices are exchanged'),
    Case('even slices first', voxels(lambda ctp: ctp[:, :, [0, 2, 4, 1, 3, 5]]), 'slices are exchanged'),
    accepted('slices upside down', voxels(lambda ctp: ctp[:, :, ::-1])),
    Case('most slices black', voxels(
        lambda ctp: bad_slice(bad_slice(bad_slice(ctp, 2), 3), 4)), 'slices'),
]  # fmt: skip

FILES = [
    Case('empty file', content(lambda data: b''), 'not a readable NIfTI file'),
    Case('text', content(lambda data: b'no image\n' * 99), 'not a readable NIfTI file'),
    Case('picture', content(lambda data: b'\x89PNG\r\n\x1a\n' + data), 'not a readable NIfTI'),
    Case('only a header', content(lambda data: data[:352]), 'truncated'),
    Case('half a header', content(lambda data: data[:200]), 'not a readable NIfTI file'),
    Case('half a file', content(lambda data: data[: len(data) // 2]), 'truncated'),
    Case('one byte short', content(lambda data: data[:-1]), 'truncated'),
    Case('a hole at the end', content(lambda data: data[:-9000]), 'truncated'),
    Case('twice', content(lambda data: data + data), 'longer'),
    accepted('a few bytes more', content(lambda data: data + b'\0' * 12)),
    Case('named as compressed', lambda path: path.rename(f'{path}.gz'),
         'not a readable NIfTI file'),
    Case('gzip named as plain', content(lambda data: gzip.compress(data, 1)),
         'not a readable NIfTI file'),
    accepted('compressed', compressed()),
    Case('compressed twice', compressed(lambda data: gzip.compress(data, 1)),
         'not a readable NIfTI file'),
    Case('gzip of nothing', compressed(lambda data: gzip.compress(b'')),
         'not a readable NIfTI file'),
    Case('gzip cut in half', compressed(lambda data: data[: len(data) // 2]), 'truncated'),
    Case('gzip without trailer', compressed(lambda data: data[:-8]), 'gzip trailer'),
    Case('gzip one byte short', compressed(lambda data: data[:-1]), 'gzip trailer'),
    Case('length in the trailer', compressed(flip_bits([-3])), 'trailer'),
    Case('checksum in the trailer', compressed(flip_bits([-5])), 'gzip trailer'),
    Case('gzip header', compressed(flip_bits([0])), 'not a readable NIfTI file'),
    Case('gzip method', compressed(flip_bits([2])), 'not a readable NIfTI file'),
    Case('pipe as image', instead_of_image(os.mkfifo), 'is a named pipe'),
    Case('socket as image', instead_of_image(bind_socket), 'is a socket'),
    Case('device as image', instead_of_image(lambda path: path.symlink_to('/dev/zero')),
         'is a device'),
    Case('loop as image', instead_of_image(lambda path: path.symlink_to(path.name)), ''),
    Case('pointer of annex', content(lambda data: b'/annex/objects/MD5E-s123--abc.nii\n'),
         'a pointer of git-annex'),
    Case('pointer of LFS', content(lambda data: b'version https://git-lfs.github.com/spec/v1\n'),
         'a pointer of Git LFS'),
    Case('loop of folders', lambda path: (path.parent / 'again').symlink_to('..'), 'loop of symbolic'),
    Case('two loops of folders', lambda path: [
        (path.parent / name).symlink_to('..') for name in 'ab'], 'loop of symbolic links'),
    Case('header and image', remade(nb.Nifti1Pair, '.img'), 'convert the series to NIfTI'),
    Case('MGH', lambda path: path.rename(path.with_suffix('.mgz')), 'because of its format (.mgz)'),
    Case('bzip2', lambda path: path.rename(f'{path}.bz2'), 'because of its format (.nii.bz2)'),
    Case('folder as image', instead_of_image(lambda path: path.mkdir()), 'is a folder'),
    accepted('nested derivatives', lambda path: shutil.copytree(
        path.parent, path.parents[1] / 'derivatives' / 'ct')),
    Case('missing annex', instead_of_image(lambda path: path.symlink_to('/gone/key')),
         'broken symlink'),
    Case('own folder twice', lambda path: (path.parent.parent / 'perf').symlink_to('ct'),
         'would write the same outputs'),
]  # fmt: skip

NAMES = [
    Case('blank in the name', renamed('sub-{label}_acq-a b_ctp'), 'does not follow BIDS'),
    Case('line break in the name', renamed('sub-{label}_acq-a\nb_ctp'), 'does not follow BIDS'),
    Case('umlaut in the name', renamed('sub-{label}_acq-größe_ctp'), 'does not follow BIDS'),
    Case('markup in the name', renamed('sub-{label}_acq-<b>_ctp'), 'does not follow BIDS'),
    Case('no label', renamed('sub-_ctp'), 'does not follow BIDS'),
    Case('other label', renamed('sub-other_ctp'), 'belongs in sub-other'),
    Case('capitals in the suffix', renamed('sub-{label}_CTP'), 'because of its name'),
    Case(
        'session only of the folder',
        lambda path: path.parent.rename((path.parents[1] / 'ses-1').absolute()),
        'by its name, the file belongs in',
    ),
    Case('bytes in the name', renamed(b'sub-{label}_acq-\xff\xfe_ctp'), 'UTF-8'),
    Case('label of 200 letters', renamed('sub-{label}_acq-' + 'a' * 200 + '_ctp'), 'too long'),
]

TABLES = {
    'sidecars': SIDECARS, 'timing': TIMING, 'headers': HEADERS, 'geometry': GEOMETRY,
    'density': DENSITY, 'files': FILES, 'names': NAMES,
}  # fmt: skip
CASES = [case for table in TABLES.values() for case in table]
