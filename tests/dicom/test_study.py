# SPDX-License-Identifier: Apache-2.0
"""Which series of a study are converted, joined or skipped; and rules of times."""

from datetime import timedelta

import pytest

pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')

from ctpprep.dicom.scan import read_study
from ctpprep.dicom.study import plan_study
from ctpprep.dicom.timing import choose_clock
from ctpprep.exceptions import TimingError
from tests.dicom import generator as g


def series(description='CTP', number=5, start=g.START, **tags):
    """Make a perfusion series of two slices in the same study as all others."""
    scan = g.Scan('canon', n_slices=2, description=description, start=start)
    made = g.classic(scan)
    for ds in made:
        ds.SeriesNumber = number
        for name, value in tags.items():
            setattr(ds, name, value)
    return made


def plan(tmp_path, *datasets):
    source = g.write([ds for part in datasets for ds in part], tmp_path / 'src')
    scanned, _ = read_study([(str(path), '') for path in source.iterdir()])
    return {group.name: group.kind or group.reason for group in plan_study(scanned)}


@pytest.mark.parametrize(
    ('other', 'reason'),
    [
        ({'description': 'CTP MIP 20', 'ImageType': ['DERIVED', 'SECONDARY', 'MIP']}, 'contains MIP'),
        ({'description': 'CTP Registered'}, 'a processed version'),
        ({'description': 'x', 'ImageType': ['DERIVED', 'SECONDARY', 'AXIAL']}, 'a derived series'),
        ({'description': 'x', 'ConvolutionKernel': 'H70h'}, 'a sharper reconstruction'),
        ({'description': 'x', 'SliceThickness': 10}, 'another slice thickness'),
        ({'description': 'x', 'ConvolutionKernel': 'H31s'}, 'another reconstruction'),
        ({'description': 'CBF', 'ImageType': ['DERIVED', 'PRIMARY', 'CBF']}, 'contains CBF'),
    ],
)  # fmt: skip
@pytest.mark.parametrize('number', [2, 9])
def test_the_least_processed_reconstruction_is_converted(other, reason, number, tmp_path):
    if reason == 'another reconstruction' and number == 2:
        number = 9  # of equal ones, the first is converted
    verdicts = plan(tmp_path, series(), series(number=number, **other))
    assert verdicts.pop('series 5 (CTP)') == 'ctp'
    assert reason in next(iter(verdicts.values()))


def test_a_derived_series_without_an_original_is_converted_with_a_note(tmp_path):
    source = g.write(series(ImageType=['DERIVED', 'SECONDARY', 'AXIAL']), tmp_path / 'src')
    scanned, _ = read_study([(str(path), '') for path in source.iterdir()])
    (group,) = plan_study(scanned)
    assert group.kind == 'ctp'
    assert group.notes == ['images are derived, an original series does not exist']


def test_two_scans_of_a_study_are_two_series(tmp_path):
    later = series('CTP again', 8, g.START + timedelta(minutes=10))
    assert plan(tmp_path, series(), later) == {
        'series 5 (CTP)': 'ctp',
        'series 8 (CTP again)': 'ctp',
    }


@pytest.mark.parametrize(('pause', 'n_series'), [(5, 1), (120, 2)])
def test_phases_are_joined_if_they_follow_one_another(pause, n_series, tmp_path):
    later = series('CTP late', 6, g.START + timedelta(seconds=16.5 + pause))
    assert len(plan(tmp_path, series(), later)) == n_series


class Timed:
    """An image with times and numbers."""

    def __init__(self, number=1, **times):
        self.times, self.order = times, {'InstanceNumber': number}


def clock(images, interval=None):
    return choose_clock([images], interval, lambda a, b: False)[0].rule


def test_the_first_rule_that_separates_images_is_used():
    images = [Timed(AcquisitionTime=5.0, ContentTime=2.0 * i) for i in range(12)]
    assert clock(images) == 'ContentTime'
    for i, image in enumerate(images):
        image.times |= {'MidScanTime': 2.0 * i, 'FrameReferenceDateTime': 3.0 * i}
    assert clock(images) == 'FrameReferenceDateTime'


def test_a_rule_that_some_images_lack_is_not_used():
    images = [Timed(AcquisitionTime=1.5 * i, ContentTime=2.0 * i) for i in range(12)]
    del images[3].times['AcquisitionTime']
    assert clock(images) == 'ContentTime'


@pytest.mark.parametrize('step', [0.5, 40.0])
def test_times_that_do_not_span_a_scan_are_not_used(step):
    images = [Timed(number=i, AcquisitionTime=step * i) for i in range(12)]
    with pytest.raises(
        TimingError, match=r'AcquisitionTime spans .* InstanceNumber gives an order'
    ):
        clock(images)
    assert clock(images, interval=1.5) == 'InstanceNumber'
