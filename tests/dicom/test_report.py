# SPDX-License-Identifier: Apache-2.0
"""The structured report: volumes, side and verdict as codes, and what it refers to."""

import pytest

pydicom = pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')
highdicom = pytest.importorskip('highdicom', reason='needs the extra ctpprep[dicom]')

from highdicom.sr.utils import find_content_items  # noqa: E402

from ctpprep.dicom.objects import SEGMENTS  # noqa: E402
from ctpprep.io.records import make_record  # noqa: E402
from tests.dicom.results import (  # noqa: E402
    PREFIX,
    convert,
    run,
    volume_ml,
    voxels_of,
    write_status,
    write_table,
)

EMPTY = 'label-core_desc-local_mask'


def read(folder, name):
    return pydicom.dcmread(folder / 'dicom' / PREFIX / f'{name}.dcm')


def groups_of(report):
    """Measurement groups by their tracking identifier."""
    items = find_content_items(report, value_type='CONTAINER', recursive=True)
    groups = [i for i in items if i.ConceptNameCodeSequence[0].CodeValue == '125007']
    return {values_of(group)['112039'][0]: group for group in groups}


def values_of(group):
    """Values of the items of a container, by the code of their name."""
    values = {}
    for item in group.ContentSequence:
        if item.ValueType == 'NUM':
            measured = item.MeasuredValueSequence[0]
            value = (
                float(measured.NumericValue),
                measured.MeasurementUnitsCodeSequence[0].CodeValue,
            )
        elif item.ValueType == 'CODE':
            value = item.ConceptCodeSequence[0].CodeValue
        elif item.ValueType == 'TEXT':
            value = item.TextValue
        elif item.ValueType == 'IMAGE':
            value = item.ReferencedSOPSequence[0]
        else:
            continue
        values.setdefault(item.ConceptNameCodeSequence[0].CodeValue, []).append(value)
    return values


def texts_of(report):
    items = find_content_items(report, value_type='TEXT', recursive=True)
    return ' | '.join(item.TextValue for item in items)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp('report')
    convert(folder, status='warn', empty=[EMPTY])
    assert run(folder) == 0
    return folder


@pytest.mark.parametrize('ending', SEGMENTS)
def test_volumes_are_those_of_the_segments(exported, ending):
    label, segmentation = SEGMENTS[ending][0], read(exported, 'seg')
    values = values_of(groups_of(read(exported, 'sr'))[label])
    volume = volume_ml(voxels_of(exported, ending))
    assert values['118565006'][0] == (pytest.approx(volume), 'mL')
    segment = values['121191'][0]
    assert segment.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
    described = segmentation.SegmentSequence[int(segment.ReferencedSegmentNumber) - 1]
    assert described.SegmentLabel == label
    if 'core' in ending and volume:
        limits = [value for value, _ in values['118565006'][1:]]
        assert limits == pytest.approx([volume / 2, volume * 2])
    if 'mismatch' in ending:
        assert values['mismatch_ratio'] == [(1.75, '{ratio}')]
        assert values['difference'] == [(12.5, 'mL')]


def test_side_and_verdict_are_codes(exported):
    report = read(exported, 'sr')
    values = values_of(groups_of(report)['Perfusion series'])
    assert values['affected_side'] == ['24028007']
    assert values['111050'] == ['111236']
    site = find_content_items(
        groups_of(report)['Hypoperfusion'], highdicom.sr.CodedConcept('363698007', 'SCT', 'x')
    )
    assert site[0].ContentSequence[0].ConceptCodeSequence[0].CodeValue == '24028007'


def test_reasons_and_purpose_are_texts(exported):
    texts = texts_of(read(exported, 'sr'))
    assert 'Research use only, not for diagnosis' in texts
    assert 'noise is 40 HU' in texts
    assert 'density drifts' not in texts
    assert 'Infarct core (local): no voxels' in texts


def test_the_report_refers_to_the_segmentation_and_the_source(exported):
    report = read(exported, 'sr')
    source = pydicom.dcmread(next((exported / 'src').iterdir()))
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == source.StudyInstanceUID
    series = {s.SeriesInstanceUID: s.ReferencedSOPSequence for s in study.ReferencedSeriesSequence}
    assert {*series} == {source.SeriesInstanceUID, read(exported, 'seg').SeriesInstanceUID}
    assert len(series[source.SeriesInstanceUID]) == 4


def test_highdicom_reads_the_report_again(exported):
    path = exported / 'dicom' / PREFIX / 'sr.dcm'
    content = highdicom.sr.srread(path).content
    assert len(content.get_volumetric_roi_measurement_groups()) == len(SEGMENTS)
    assert content.get_observer_contexts()[0].observer_identifying_attributes.name == 'ctpprep'


def test_the_uid_changes_with_the_verdict_alone(tmp_path):
    results = convert(tmp_path)
    uids = []
    for status in ('pass', 'pass', 'warn'):
        columns = [['noise_raw_status'], [status]]
        write_table(results / f'{PREFIX}_desc-qualitycontrol_ctp.tsv', columns)
        assert run(tmp_path) == 0
        uids.append([read(tmp_path, name).SOPInstanceUID for name in ('seg', 'sr')])
    assert uids[0] == uids[1]
    assert uids[0][0] == uids[2][0]
    assert uids[0][1] != uids[2][1]


def test_of_a_series_that_failed_only_the_verdict_is_exported(tmp_path, capsys):
    convert(tmp_path, status='fail')
    assert run(tmp_path, '--force') == 0
    assert values_of(groups_of(read(tmp_path, 'sr'))['Hypoperfusion'])
    assert run(tmp_path) == 1
    assert 'quality control failed (noise_raw)' in capsys.readouterr().out
    assert [p.name for p in (tmp_path / 'dicom' / PREFIX).iterdir()] == ['sr.dcm']
    report = read(tmp_path, 'sr')
    assert [*groups_of(report)] == ['Perfusion series']
    assert values_of(groups_of(report)['Perfusion series'])['111050'] == ['111235']
    assert 'noise is 40 HU' in texts_of(report)


def test_of_a_series_whose_run_failed_the_cause_is_exported(tmp_path, capsys):
    results = convert(tmp_path)
    for path in results.iterdir():
        path.unlink()
    write_status(tmp_path, State='failed', Cause='no contrast bolus')
    assert run(tmp_path, '--force') == 1
    assert 'ctpprep failed (no contrast bolus)' in capsys.readouterr().out
    assert 'no contrast bolus' in texts_of(read(tmp_path, 'sr'))


def assert_only_the_verdict(folder, reason, capsys):
    """Check an export without results, and that they are exported by force, with the verdict."""
    assert run(folder) == 1
    assert reason in capsys.readouterr().out
    assert [p.name for p in (folder / 'dicom' / PREFIX).iterdir()] == ['sr.dcm']
    for options in ([], ['--force']):
        assert not options or run(folder, *options) == 0
        report = read(folder, 'sr')
        assert values_of(groups_of(report)['Perfusion series'])['111050'] == ['111235']
        assert reason in texts_of(report)
    assert 'Hypoperfusion' in groups_of(report)


def test_of_a_run_that_has_not_ended_only_the_verdict_is_exported(tmp_path, capsys):
    convert(tmp_path)
    write_status(tmp_path, State='running')
    assert_only_the_verdict(tmp_path, 'its latest run has not ended', capsys)


def test_without_results_there_is_nothing_to_force(tmp_path, capsys):
    results = convert(tmp_path)
    for path in results.iterdir():
        path.unlink()
    write_status(tmp_path, State='running')
    assert run(tmp_path, '--force') == 1
    assert 'its latest run has not ended' in capsys.readouterr().out


def test_of_results_that_have_changed_only_the_verdict_is_exported(tmp_path, capsys):
    results = convert(tmp_path)
    record = make_record(results.iterdir(), tmp_path / 'out')
    write_status(tmp_path, State='running', Files=record)
    assert run(tmp_path) == 0
    (results / f'{PREFIX}_cbf.nii.gz').write_bytes((results / f'{PREFIX}_cbv.nii.gz').read_bytes())
    assert_only_the_verdict(tmp_path, f'{PREFIX}_cbf.nii.gz has changed since its run', capsys)


@pytest.mark.parametrize('table', [None, [['noise_raw_status'], ['n/a']]])
def test_of_results_without_a_grade_only_the_verdict_is_exported(table, tmp_path, capsys):
    path = convert(tmp_path) / f'{PREFIX}_desc-qualitycontrol_ctp.tsv'
    if table is None:
        path.unlink()
    else:
        write_table(path, table)
    assert_only_the_verdict(tmp_path, 'no quality check has a grade', capsys)
