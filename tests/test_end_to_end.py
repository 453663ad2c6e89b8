# SPDX-License-Identifier: Apache-2.0
"""The command on a small head with known truth, beside two series that cannot be processed.

One run serves most tests: it costs half a minute, and all of them stay in this file so that one
worker makes it once.
"""

import getpass
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
import rdflib
from scipy import ndimage

from bids_schema import validate
from ctpprep import __version__, compute_maps
from ctpprep.group import run_group_level
from ctpprep.io.bids import resolve_uri
from ctpprep.perfusion.quality import BILATERAL, CHECKS
from ctpprep.phantom import PhantomSettings, make_phantom, write_bids
from ctpprep.provenance import query
from ctpprep.settings import MethodSettings, RunSettings
from ctpprep.workflows.outputs import derivatives

HEAD = PhantomSettings(
    seed=7, matrix=48, voxel_size_mm=(4.5, 4.5, 10.0), n_slices=8, n_frames=20,
    frame_interval=2.0, motion_mm=1.0, microangiopathy=True, lesion='large', lesion_side='right',
    orientation='LPS',
)  # fmt: skip
# the head has no non-contrast CT
TABLE = {
    row.name: row
    for row in derivatives('normal-tmax')
    if row.stage not in ('coregistration', 'followup')
}
IMAGES = [name for name, row in TABLE.items() if row.ending.endswith('.nii.gz')]
MAPS = ('cbf', 'cbv', 'mtt', 'tmax', 'ttp')
LESIONS = ('core_global', 'core_local', 'hypoperfusion', 'mismatch_global', 'mismatch_local')


def call(folder, out, *options, work='work', dataset='raw'):
    """Run the command as a user does, from another folder."""
    command = [sys.executable, '-m', 'ctpprep', folder / dataset, folder / out, 'participant']
    command += ['-w', folder / work, *options]
    environment = {k: v for k, v in os.environ.items() if k != 'TEMPLATEFLOW_HOME'}
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd=folder,
        env=environment, check=False,
    )  # fmt: skip


def cut_off(series, participant, raw):
    """Add a participant whose file was not copied to its end."""
    path = raw / f'sub-{participant}' / 'ct' / f'sub-{participant}_ctp.nii.gz'
    path.parent.mkdir(parents=True)
    content = series.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    path.with_name(f'sub-{participant}_ctp.json').write_text('{"RepetitionTime": 2.0}')


def without_contrast(series, participant, raw):
    """Add a participant who got no contrast, at half of the resolution."""
    path = raw / f'sub-{participant}' / 'ct' / f'sub-{participant}_ctp.nii.gz'
    path.parent.mkdir(parents=True)
    image = nb.load(series).slicer[::2, ::2]
    before = np.asarray(image.dataobj)[..., :1]
    before = np.repeat(before, 10, axis=-1) + np.random.default_rng(0).normal(size=10)
    nb.save(nb.Nifti1Image(before.astype(np.int16), image.affine, image.header), path)
    path.with_name(f'sub-{participant}_ctp.json').write_text('{"RepetitionTime": 2.0}')


@pytest.fixture(scope='module')
def head():
    return make_phantom(HEAD)


@pytest.fixture(scope='module')
def site(head, tmp_path_factory):
    """Give the folder of the dataset and the first run: raw, first, work."""
    folder = tmp_path_factory.mktemp('site')
    series = write_bids(head, folder / 'raw', '01')
    cut_off(series, '02', folder / 'raw')
    without_contrast(series, '03', folder / 'raw')
    first = call(folder, 'out', '--nprocs', '1')
    assert (folder / 'out').is_dir(), first.stderr
    (folder / 'out').rename(folder / 'first')
    return SimpleNamespace(folder=folder, out=folder / 'first', series=series, run=first)


@pytest.fixture(scope='module')
def where(site):
    """Name the file of a quantity."""
    return lambda name: site.out / 'sub-01' / 'ct' / f'sub-01_{TABLE[name].ending}'


@pytest.fixture(scope='module')
def read(where):
    """Read the voxels of a quantity."""
    return lambda name: np.asarray(nb.load(where(name)).dataobj)


def sidecar(path):
    return json.loads(path.with_name(path.name.split('.')[0] + '.json').read_text())


# -- the run and the two that fail


def test_a_failed_series_shows_in_the_exit_code(site):
    assert site.run.returncode == 1, site.run.stderr


def test_each_failure_is_one_plain_sentence(site):
    said = site.run.stdout + site.run.stderr
    assert 'Traceback' not in said
    assert site.run.stderr.count('ctpprep: error:') == 1
    assert 'sub-02/ct/sub-02_ctp.nii.gz: the file is truncated' in site.run.stderr
    assert 'sub-01  ok' in site.run.stdout
    for label in ('02', '03'):
        (line,) = [x for x in site.run.stdout.splitlines() if x.startswith(f'sub-{label}  failed')]
        assert len(line) > 30


def test_absent_contrast_is_named_as_the_reason(site):
    assert 'sub-03  failed  no contrast bolus' in site.run.stdout


@pytest.mark.parametrize('reason', ['02: the file is truncated', '03: no contrast bolus'])
def test_report_of_a_failed_participant_names_the_reason(site, reason):
    label, _, sentence = reason.partition(': ')
    assert sentence in (site.out / f'sub-{label}.html').read_text()


def test_a_failed_participant_has_no_maps(site):
    assert not list(site.out.glob('sub-02/**/*.nii.gz'))
    assert not list(site.out.glob('sub-03/**/*_cbf.nii.gz'))


def test_no_half_written_file_stays(site):
    names = [path.name for path in site.out.rglob('*')]
    assert not [name for name in names if name.startswith('.') and name != '.bidsignore']


def test_the_raw_dataset_is_left_alone(site):
    files = {path.name for path in (site.folder / 'raw').glob('sub-*/ct/*')}
    assert files == {
        f'sub-{n}_ctp.{end}' for n in ('01', '02', '03') for end in ('nii.gz', 'json')
    }


# -- the same from arrays


@pytest.fixture(scope='module')
def result(site, head):
    """Compute the series of the run from its arrays alone."""
    image = nb.as_closest_canonical(nb.load(site.series))
    return compute_maps(
        np.asarray(image.dataobj), head.frame_times, nb.affines.voxel_sizes(image.affine),
        affine=image.affine,
    )  # fmt: skip


@pytest.mark.parametrize('name', ['cbf', 'tmax', 'core_global', 'core_local'])
def test_arrays_give_the_values_of_the_files(result, where, name):
    written = np.asarray(nb.as_closest_canonical(nb.load(where(name))).dataobj)
    masks = result.lesions.masks
    computed = masks[name] if name.startswith('core') else getattr(result.maps, name)
    assert computed.any()
    # the table of curves has six digits
    np.testing.assert_allclose(computed, written, rtol=1e-3, atol=1e-3)


# -- files


def test_every_row_of_the_table_is_a_file_with_a_sidecar(where):
    missing = [name for name in TABLE if not where(name).stat().st_size]
    assert not missing
    for name in TABLE:
        assert sidecar(where(name))['Description'] == TABLE[name].description


def test_no_json_stands_without_its_file(site):
    names = {path.name for path in site.out.glob('sub-01/ct/*')}
    stems = {name.split('.')[0] for name in names if not name.endswith('.json')}
    assert {name.split('.')[0] for name in names if name.endswith('.json')} == stems


def described(out):
    return json.loads((out / 'dataset_description.json').read_text())


def lost_sources(out):
    """List the sources of all sidecars that name no file."""
    links = described(out)['DatasetLinks']
    told = {
        path: json.loads(path.read_text())['Sources'] for path in out.glob('sub-*/**/ct/*.json')
    }
    assert told
    return [
        f'{path.name}: {uri}'
        for path, uris in told.items()
        for uri in uris
        if not resolve_uri(uri, out, links).is_file()
    ]


def invalid(dataset):
    """List what the validator calls an error, the folders ct/ included."""
    issues = validate(dataset)
    assert not [each for each in issues if each['code'] == 'JSON_INVALID']
    return [each for each in issues if each['severity'] == 'error']


def test_every_source_is_there(site):
    assert lost_sources(site.out) == []


def test_the_dataset_tells_its_maker_and_sources(site):
    told = described(site.out)
    assert told['GeneratedBy'] == [{'Name': 'ctpprep', 'Version': __version__}]
    assert (site.out / told['DatasetLinks']['raw']).samefile(site.folder / 'raw')
    assert told['SourceDatasets'] == [{'URL': 'bids:raw:'}]


def test_outputs_of_series_and_group_are_valid(site):
    run_group_level(RunSettings(site.folder / 'raw', site.out, site.folder / 'work'))
    assert str(site.folder) not in (site.out / 'group.html').read_text()
    assert invalid(site.out) == []


def test_what_was_measured_stands_in_the_sidecars(where):
    assert sidecar(where('cbf'))['Measured']['lambda_tmax'] > 0
    relative = sidecar(where('rcbf_global'))['Measured']
    assert relative['cbf_reference'] > 0
    assert relative['affected_side'] == 'right'
    assert sidecar(where('reference'))['Measured']['n_baseline'] >= 3


def test_sidecars_tell_nothing_of_the_machine(site):
    texts = [path.read_text() for path in site.out.glob('sub-01/ct/*.json')]
    texts += [(site.out / 'dataset_description.json').read_text()]
    assert not [text for text in texts if str(site.folder) in text]


@pytest.mark.parametrize('name', IMAGES)
def test_image_is_on_the_grid_of_the_series(site, where, name):
    image, series = nb.load(where(name)), nb.load(site.series)
    assert image.shape[:3] == series.shape[:3]
    np.testing.assert_allclose(image.affine, series.affine, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == 'mm'
    for code in ('qform_code', 'sform_code'):
        assert image.header[code] == series.header[code]


@pytest.mark.parametrize('name', IMAGES)
def test_image_holds_numbers_of_its_type(where, name):
    image = nb.load(where(name))
    voxels = np.asarray(image.dataobj)
    assert np.isfinite(voxels).all()
    whole = name.endswith(('mask', 'hemispheres', 'lesions')) or name in LESIONS
    expected = np.uint8 if whole else np.int16 if name == 'ctp_corrected' else np.float32
    assert image.get_data_dtype() == expected
    assert np.isnan(image.header['scl_slope']) or name == 'ctp_corrected'


def test_masks_hold_0_and_1_and_are_not_empty(read):
    masks = [name for name in IMAGES if name.endswith('_mask') or name in LESIONS]
    for name in masks:
        assert set(np.unique(read(name))) <= {0, 1}
        assert name in ('unassessable_mask', 'hypodense_mask') or read(name).any(), name


def test_maps_are_0_outside_tissue(read):
    outside = read('tissue_mask') == 0
    for name in (*MAPS, 'noise', 'rcbf_global', 'rcbv_global', 'rcbf_local', 'rcbv_local'):
        assert not read(name)[outside].any(), name


def test_corrected_series_keeps_frames_and_time(where, head):
    image = nb.load(where('ctp_corrected'))
    assert image.shape == head.ctp.shape
    assert image.header['pixdim'][4] == pytest.approx(2.0)
    assert image.header.get_xyzt_units() == ('mm', 'sec')
    times = sidecar(where('ctp_corrected'))['VolumeTiming']
    assert times == pytest.approx([2.0 * frame for frame in range(HEAD.n_frames)])


def test_corrected_series_is_in_hu(read, head):
    still = np.abs(read('ctp_corrected')[..., 0] - head.ctp[..., 0])
    assert still.max() < 0.1  # frame 0 is not moved


def test_there_is_one_transform_a_frame(where):
    text = where('frame_transforms').read_text()
    assert text.count('#Transform') == HEAD.n_frames


def test_tables_have_one_row_a_frame_and_explained_columns(where):
    for name in ('confounds', 'curves'):
        table = pd.read_csv(where(name), sep='\t')
        assert len(table) == HEAD.n_frames
        described = sidecar(where(name))
        assert all(described[column]['Description'] for column in table)


def test_labels_of_segmentations_are_explained(where, read):
    for name in ('hemispheres', 'lesions'):
        path = where(name)
        table = pd.read_csv(path.with_name(path.name.replace('.nii.gz', '.tsv')), sep='\t')
        assert set(np.unique(read(name))) - {0} <= set(table['index'])


def test_report_shows_every_figure_of_the_series(site):
    page = (site.out / 'sub-01.html').read_text()
    figures = list((site.out / 'sub-01' / 'figures').glob('*.svg'))
    assert len(figures) == 10
    assert page.count('data:image/svg+xml') >= len(figures)


def test_viewer_is_in_the_page_which_stays_small(site):
    held = json.loads(
        (site.out / 'sub-01' / 'figures' / 'sub-01_desc-viewer_ctp.json').read_text()
    )
    assert [each['name'] for each in held['maps']] == [
        *('cbf', 'cbv', 'mtt', 'tmax', 'rcbf_global', 'rcbf_local'),
        *('reference', 'reference_reflected', 'homologue_reference'),
    ]
    assert {'homologues', 'curves', 'vessels'} <= held.keys()
    page = site.out / 'sub-01.html'
    assert 'id="sub-01-viewer-data"' in page.read_text()
    assert page.stat().st_size < 10e6


# -- provenance


def graphs(out):
    return sorted((out / 'prov').glob('*.jsonld'))


def records(out):
    """Records of the last run, by their ids."""
    return {each['Id']: each for each in json.loads(graphs(out)[-1].read_text())['@graph']}


def steps(out, label):
    return [each for each in records(out).values() if each.get('Label') == label]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_documented_query_names_input_aif_and_lambda(site, where):
    page = (Path(__file__).parents[1] / 'docs' / 'usage.md').read_text()
    (query,) = re.findall(r'```sparql\n(.*?)```', page, flags=re.DOTALL)
    graph = rdflib.Graph().parse(graphs(site.out)[0], format='json-ld')
    (row,) = graph.query(query)
    found = row.asdict()
    assert str(found['input']) == 'bids:raw:sub-01/ct/sub-01_ctp.nii.gz'
    assert str(found['input_sha256']) == sha256(site.series)
    assert str(found['aif']) == f'bids::sub-01/ct/{where("curves").name}'
    assert str(found['aif_sha256']) == sha256(where('curves'))
    measured = sidecar(where('cbf'))['Measured']['lambda_tmax']
    assert found['lambda'].toPython() == pytest.approx(measured)
    assert found['core_rcbf'].toPython() == MethodSettings().lesion.core_rcbf


def test_every_file_of_the_series_is_recorded_with_its_digest(site):
    known = records(site.out)
    files = [path for path in site.out.glob('sub-01/*/*') if path.is_file()]
    assert len(files) > 80
    for path in files:
        record = known[f'bids::{path.relative_to(site.out).as_posix()}']
        assert record['SHA256'] == sha256(path), path.name
        assert record['DerivedFrom'], path.name


def test_every_reference_within_the_graph_resolves(site):
    known = records(site.out)
    links = ('Used', 'DerivedFrom', 'AlternateOf', 'GeneratedBy', 'AssociatedWith', 'PartOf')
    for record in known.values():
        for link in links:
            targets = record.get(link, [])
            for target in targets if isinstance(targets, list) else [targets]:
                assert target in known, f'{record["Id"]}: {link} {target}'


def test_the_graph_is_flat(site):
    for record in records(site.out).values():
        for value in record.values():
            objects = [each for each in np.atleast_1d(value) if isinstance(each, dict)]
            assert all(set(each) == {'Id'} for each in objects)


def test_steps_tell_times_parameters_and_software(site, where):
    (step,) = steps(site.out, 'segment_lesions')
    assert step['StartedAtTime'] < step['EndedAtTime']
    assert step['parameter:opening_mm'] == MethodSettings().segmentation.opening_mm
    versions = {
        each['Label']: each['Version']
        for each in records(site.out).values()
        if each['Type'] == 'Software'
    }
    assert versions['ctpprep'] == __version__
    assert {'antspyx', 'nipype', 'numpy'} <= set(versions)
    (mirror,) = steps(site.out, 'register_mirror')
    assert 'run:software/antspyx' in mirror['AssociatedWith']


def test_the_graph_tells_how_far_a_failed_series_came(site):
    states = {each['Id']: each['Status'] for each in steps(site.out, 'make_masks')}
    assert sorted(states.values()) == ['failed', 'finished']
    (failed,) = [name for name, state in states.items() if state == 'failed']
    assert 'sub_03' in failed
    assert records(site.out)['run:ctpprep']['FailedSeries'] == ['sub-02', 'sub-03']
    assert not [name for name in records(site.out) if name.startswith('bids::sub-03/ct')]


def test_records_that_travel_tell_nothing_of_the_machine(site):
    files = [*graphs(site.out), *site.out.glob('logs/CITATION.*'), *site.out.glob('logs/*.toml')]
    pages = site.out.glob('sub-*.html')
    texts = [path.read_text() for path in (*files, *pages)]
    # words of CSS and of statistics that are also the name of a user
    texts = [text.replace(':root', '').replace('root mean square', '') for text in texts]
    assert len(texts) == 7
    for secret in (str(site.folder), platform.node(), getpass.getuser(), str(Path.home())):
        assert not [
            text for text in texts if re.search(rf'(?<!\w){re.escape(secret)}(?!\w)', text)
        ]


def test_citation_holds_the_methods_text_of_the_report(site):
    text = (site.out / 'logs' / 'CITATION.md').read_text()
    assert 'Local normalization supplements the global one and does not replace it.' in text
    assert 'CBF  = 6000 (k_H / rho) flow / f' in text
    assert '@article{rau2024,' in (site.out / 'logs' / 'CITATION.bib').read_text()


def test_the_tree_leads_from_the_core_to_the_series(site, where, capsys):
    assert query.main([str(where('core_local'))]) == 0
    lines = capsys.readouterr().out.splitlines()
    order = [
        'label-core_desc-local_mask', 'segment_lesions(', 'core_rcbf=0.3', '_tmax.nii.gz', 'deconvolve(',
        'lambda_rel=', 'vascular_timeseries.tsv', 'bids:raw:sub-01/ct/sub-01_ctp',
    ]  # fmt: skip
    places = [next(i for i, line in enumerate(lines) if word in line) for word in order]
    assert places == sorted(places)
    assert str(site.folder) not in '\n'.join(lines)


# -- values


def test_affected_side_is_right(where):
    table = pd.read_csv(where('volumes'), sep='\t')
    assert set(table['affected_side']) == {'right'}


def test_hemispheres_are_those_of_the_head(read, head):
    found, truth = read('hemispheres'), head.truth['side']
    both = (found > 0) & (truth > 0)
    assert (found == truth)[both].mean() > 0.97


def test_lesions_lie_in_tissue_of_the_affected_hemisphere(read):
    allowed = (read('tissue_mask') > 0) & (read('hemispheres') == 2)
    for name in LESIONS:
        assert not (read(name)[~allowed]).any(), name


def test_lesions_are_where_the_truth_is(read, head):
    found, truth = read('hypoperfusion') > 0, head.truth['hypoperfusion']
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.6
    core = read('core_global') > 0
    assert (core & head.truth['core']).sum() > 0.5 * core.sum()


def test_mismatch_is_hypoperfusion_without_core(read):
    for which in ('global', 'local'):
        expected = (read('hypoperfusion') > 0) & (read(f'core_{which}') == 0)
        np.testing.assert_array_equal(read(f'mismatch_{which}') > 0, expected)


def test_combined_labels_agree_with_the_masks(read):
    lesions = read('lesions')
    np.testing.assert_array_equal(np.isin(lesions, (1, 2)), read('core_global') > 0)
    np.testing.assert_array_equal(np.isin(lesions, (1, 3)), read('core_local') > 0)
    neither = (read('mismatch_global') > 0) & (read('mismatch_local') > 0)
    np.testing.assert_array_equal(lesions == 4, neither)


def test_microangiopathy_makes_less_false_core_locally(read, head):
    spared = head.truth['microangiopathy'] & ~head.truth['core']
    false = {which: (read(f'core_{which}') > 0)[spared].sum() for which in ('global', 'local')}
    assert false['global'] > 0
    assert false['local'] < 0.6 * false['global']


def test_flow_is_high_where_it_is_high(read, head):
    tissue = (read('tissue_mask') > 0) & (head.truth['tissue'] > 0.9)
    assert np.corrcoef(read('cbf')[tissue], head.truth['cbf'][tissue])[0, 1] > 0.55


def test_global_reference_is_1(read):
    normal = (read('tissue_mask') > 0) & (
        read('tmax') <= MethodSettings().normalization.normal_tmax
    )
    assert np.median(read('rcbf_global')[normal]) == pytest.approx(1, abs=1e-5)
    assert np.median(read('rcbv_global')[normal]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('region', LESIONS)
def test_volume_is_that_of_the_mask(where, read, region):
    name, _, which = region.partition('_')
    table = pd.read_csv(where('volumes'), sep='\t', keep_default_na=False)
    chosen = (table['region'] == name) & (table['normalization'] == (which or 'n/a'))
    (row,) = table[chosen & (table['measure'] == 'volume')].to_dict('records')
    size = np.prod(HEAD.voxel_size_mm) / 1000
    assert float(row['volume_ml']) == pytest.approx(read(region).sum() * size, abs=1e-3)
    assert row['hemisphere'] == 'right'
    assert row['reason'] == 'n/a'


def test_difference_and_ratio_follow_from_the_volumes(where):
    table = pd.read_csv(where('volumes'), sep='\t')
    key = table.set_index(['region', 'normalization', 'measure'])
    slow = table.query('region == "hypoperfusion" and measure == "volume"')['volume_ml'].iloc[0]
    for which in ('global', 'local'):
        core = key.loc[('core', which, 'volume'), 'volume_ml']
        difference = key.loc[('mismatch', which, 'difference'), 'volume_ml']
        assert difference == pytest.approx(slow - core, abs=1e-3)
        assert key.loc[('mismatch', which, 'ratio'), 'value'] == pytest.approx(
            slow / core, abs=1e-3
        )


def test_quality_is_one_row_of_graded_figures(where):
    table = pd.read_csv(where('quality'), sep='\t', keep_default_na=False)
    (row,) = table.to_dict('records')
    assert row['status'] in ('pass', 'warn', 'fail')
    for check in CHECKS:
        # of a mirrored map, of precomputed maps, and of what the user supplies
        if check.name in {'mirror_similarity', 'map_likeness', *SUPPLIED_CHECKS}:
            continue
        assert row[f'{check.name}_status'] in ('pass', 'warn', 'fail'), check.name
        assert np.isfinite(float(row[check.name]))
        assert row[f'{check.name}_sentence']
    assert row['caution'] == 'n/a'  # microangiopathy lowers flow on both sides, and is no infarct


def test_infarcts_on_both_sides_make_the_local_map_unreliable(tmp_path):
    write_bids(make_phantom(replace(HEAD, lesion_side='both')), tmp_path / 'raw', '01')
    run = call(tmp_path, 'out', '--nprocs', '1', '--affected-side', 'both')
    assert run.returncode == 0, run.stderr
    ending = TABLE['quality'].ending
    table = pd.read_csv(tmp_path / 'out' / 'sub-01' / 'ct' / f'sub-01_{ending}', sep='\t')
    (row,) = table.to_dict('records')
    for name in BILATERAL:
        assert row[f'{name}_status'] == 'fail', name
    assert 'read the global map' in row['caution']
    assert re.search('(do not use|look first): .*read the global map', run.stdout)
    page = (tmp_path / 'out' / 'sub-01.html').read_text()
    assert 'Local normalization is unreliable here. Read the global map.' in page


# -- mirror


@pytest.fixture(scope='module')
def through_mirror(where):
    """Apply the written transform with ANTs to an image given as ANTs reads it."""
    import ants

    fixed = ants.image_read(str(where('reference')))
    transform = [str(where('mirror_to_reference'))]
    return lambda image: ants.apply_transforms(fixed, image, transform, 'linear').numpy()


def test_mirrored_reference_is_the_reference_flipped(where):
    reference, mirrored = (
        nb.as_closest_canonical(nb.load(where(name))).get_fdata()
        for name in ('reference', 'reference_mirror')
    )
    np.testing.assert_array_equal(mirrored, reference[::-1])


def test_transform_brings_the_mirrored_reference_home(where, read, through_mirror):
    import ants

    reference = read('reference')
    # off the rim of CSF, which is alike on both sides wherever the mirrored image lies
    brain = ndimage.binary_erosion(read('brain_mask') > 0, np.ones((3, 3, 1)), iterations=2)

    def likeness(image):
        first, second = (np.clip(each[brain], 0, 60) for each in (reference, image))
        return np.corrcoef(first, second)[0, 1]

    home = through_mirror(ants.image_read(str(where('reference_mirror'))))
    assert likeness(home) > likeness(read('reference_mirror')) + 0.1


@pytest.mark.parametrize('quantity', ['rcbf', 'rcbv'])
def test_flipped_map_through_the_transform_is_the_contralateral_map(
    where, read, through_mirror, quantity
):
    import ants

    def home(name):
        image = ants.image_read(str(where(name)))
        return through_mirror(image.new_image_like(image.numpy()[::-1]))  # voxels run to the left

    share = home('tissue_mask')
    clear = share > 0.51  # at 0.5 rounding decides
    mirrored = read(f'{quantity}_mirrored')
    # regions without structure, of unknown homologues, are not used
    used = clear & (mirrored != 0)
    assert used.sum() > 0.75 * clear.sum()
    expected = home(f'{quantity}_global')[used] / share[used]
    np.testing.assert_allclose(mirrored[used], expected, rtol=1e-3, atol=1e-3)
    assert not mirrored[share < 0.49].any()


# -- again


def same_files(first, second):
    """List the images and tables of sub-01 that differ between two output folders."""
    names = sorted(path.name for path in (first / 'sub-01/ct').iterdir())
    assert names == sorted(path.name for path in (second / 'sub-01/ct').iterdir())
    differ = []
    for name in names:
        one, two = (folder / 'sub-01/ct' / name for folder in (first, second))
        if name.endswith('.nii.gz'):
            images = [nb.load(path) for path in (one, two)]
            same = np.array_equal(*(np.asarray(image.dataobj) for image in images))
            same &= np.array_equal(*(image.affine for image in images))
        elif name.endswith('.h5'):
            continue  # holds the date
        else:
            same = one.read_text() == two.read_text()
        differ += [] if same else [name]
    return differ


def test_a_deleted_output_folder_comes_back_without_computing_again(site):
    out = site.folder / 'out'
    shutil.rmtree(out, ignore_errors=True)
    kept = {path: path.stat().st_mtime_ns for path in site.folder.glob('work/ctpprep-*/**/*.nii')}
    assert kept
    (site.folder / 'same').symlink_to('raw')  # nor does it matter how the dataset is called
    options = ('--nprocs', '1', '--participant-label', '01')
    again = call(site.folder, 'out', *options, dataset='same')
    assert again.returncode == 0, again.stderr
    assert again.stderr == ''
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert same_files(site.out, out) == []
    figures = [path.name for path in (site.out / 'sub-01/figures').iterdir()]
    assert sorted(figures) == sorted(path.name for path in (out / 'sub-01/figures').iterdir())
    assert (out / 'sub-01.html').stat().st_size > 0.9 * (site.out / 'sub-01.html').stat().st_size
    for label, status in (('deconvolve', 'reused'), ('write_deconvolution', 'finished')):
        (step,) = steps(out, label)
        assert step['Status'] == status
    first, second = records(site.out), records(out)
    # the run is another one, what it rests on is not
    core = f'bids::sub-01/ct/sub-01_{TABLE["core_local"].ending}'
    assert second[core] == first[core]
    for part in ('sub_01', 'bids:raw:sub-01'):
        assert {name for name in first if part in name} == {n for n in second if part in n}
    series = 'bids:raw:sub-01/ct/sub-01_ctp.nii.gz'
    readers = [
        {name for name, each in told.items() if series in each.get('Used', ())}
        for told in (first, second)
    ]
    assert readers[0] == readers[1] != set()


def test_what_was_written_once_can_be_supplied_again(site):
    """Brain, AIF and motion correction are then not ours, but the same."""
    options = ('--nprocs', '1', '--participant-label', '01', '-d', f'first={site.out}')
    again = call(site.folder, 'again', *options, work='again_work')
    assert again.returncode == 0, again.stderr
    out = site.folder / 'again'
    for name in ('brain_mask', 'tissue_mask', 'curves'):
        path = out / 'sub-01' / 'ct' / f'sub-01_{TABLE[name].ending}'
        if name != 'curves':
            first = site.out / path.relative_to(out)
            differs = np.not_equal(*(nb.load(each).dataobj for each in (first, path)))
            # contrast arrives with the supplied AIF, which may be a frame earlier or later
            assert differs.mean() < (0.003 if name == 'tissue_mask' else 1e-9)
        if name != 'tissue_mask':
            uri = f'bids:first:sub-01/ct/{path.name}'
            assert uri in sidecar(path)['Sources']
    assert described(out)['DatasetLinks']['first'] == '../first'
    assert lost_sources(out) == []
    (step,) = steps(out, 'find_vessels')
    assert step['input:supplied_curves'] == [
        {'Id': f'bids:first:sub-01/ct/sub-01_{TABLE["curves"].ending}'}
    ]
    assert 'supplied' in (out / 'sub-01.html').read_text()


@pytest.mark.slow
def test_two_processes_give_the_voxels_of_one(site):
    options = ('--nprocs', '2', '--participant-label', '01')
    other = call(site.folder, 'other', *options, work='other_work')
    assert other.returncode == 0, other.stderr
    assert same_files(site.out, site.folder / 'other') == []


# -- a mirror registration that is not trusted


@pytest.fixture(scope='module')
def withheld(site):
    """Run again into a folder that holds local maps, with a limit that nothing reaches.

    The work folder is that of the first run, so these tests come last of those that use it.
    """
    out = site.folder / 'withheld'
    shutil.copytree(site.out, out)
    options = ('--participant-label', '01', '--mirror-most-mm', '0.1')
    again = call(site.folder, 'withheld', '--nprocs', '1', *options)
    assert again.returncode == 0, again.stderr
    return SimpleNamespace(out=out, run=again, folder=out / 'sub-01' / 'ct')


NEEDS_HOMOLOGUES = (
    'probability_local',
    'mirror_to_reference', 'reference_to_mirror', 'rcbf_mirrored', 'rcbf_local', 'rcbv_mirrored',
    'rcbv_local', 'unassessable_mask', 'core_local', 'mismatch_local',
)  # fmt: skip


def test_no_local_map_stays_from_an_earlier_run(withheld, site):
    names = {path.name for path in withheld.folder.iterdir()}
    before = {path.name for path in (site.out / 'sub-01' / 'ct').iterdir()}
    gone = {f'sub-01_{TABLE[name].ending.split(".")[0]}' for name in NEEDS_HOMOLOGUES}
    assert {name.split('.')[0] for name in before - names} == gone
    assert not names - before


def test_withheld_files_are_no_sources(withheld):
    assert lost_sources(withheld.out) == []
    assert invalid(withheld.out) == []


def test_withheld_volumes_keep_their_rows_and_tell_why(withheld, where):
    tables = [
        pd.read_csv(folder, sep='\t', keep_default_na=False)
        for folder in (where('volumes'), withheld.folder / where('volumes').name)
    ]
    key = ['region', 'normalization', 'measure', 'threshold']
    assert tables[0][key].to_numpy().tolist() == tables[1][key].to_numpy().tolist()
    local = tables[1][tables[1]['normalization'] == 'local']
    assert set(local['volume_ml']) == set(local['value']) == {'n/a'}
    assert all(reason.startswith('withheld: ') for reason in local['reason'])


def test_affected_side_is_known_without_homologues(withheld, where):
    told = sidecar(withheld.folder / where('hemispheres').name)['Measured']
    assert told['withheld']
    assert len(told['hemisphere_plane']['normal']) == 3
    table = pd.read_csv(withheld.folder / where('volumes').name, sep='\t')
    assert set(table['affected_side']) == {'right'}


def test_global_lesions_are_labelled_alone(withheld, where):
    labels = nb.load(withheld.folder / where('lesions').name).get_fdata()
    assert set(np.unique(labels)) == {0, 2, 4}


def test_quality_and_report_tell_of_the_withheld_maps(withheld, where):
    table = pd.read_csv(withheld.folder / where('quality').name, sep='\t', keep_default_na=False)
    (row,) = table.to_dict('records')
    assert row['mirror_distance_status'] == row['status'] == 'fail'
    assert row['unassessable_status'] == row['core_disagreement_status'] == 'n/a'
    assert re.search(r'ok +\w[^:]+: .*Homologues are off by about [\d.]+ mm', withheld.run.stdout)
    assert 'Local maps were withheld' in (withheld.out / 'sub-01.html').read_text()


def test_viewer_tells_no_homologue_of_a_failed_registration(withheld):
    (path,) = (withheld.out / 'sub-01' / 'figures').glob('*viewer_ctp.json')
    held = json.loads(path.read_text())
    assert 'homologues' not in held
    assert 'curves' in held


# -- maps made elsewhere

NOT_FROM_MAPS = {
    'ctp_corrected', 'frame_transforms', 'confounds', 'vessel_mask', 'csf_mask', 'aif_mask',
    'vof_mask', 'curves', 'noise', 'tissue_share', 'probability_global', 'probability_local',
}  # fmt: skip
# of supplied pieces alone
SUPPLIED_CHECKS = {'aif_likeness', 'mask_outline'}
SERIES_CHECKS = {
    'displacement_max', 'frames_rejected', 'noise_raw', 'noise_denoised', 'contrast_to_noise',
    'baseline_frames', 'arrival', 'scan_after_peak', 'scan_reserve', 'vof_end', 'vof_width',
    'aif_peak', 'aif_width', 'aif_area', 'aif_explained', 'aif_before', 'aif_undershoot',
    'aif_over_tissue', 'tissue_lag', 'vof_lag', 'drift', 'hyperdense', 'core_missed', 'frame_order',
    'tissue_unexplained', 'flow_structure', 'tmax_structure', 'hypoperfusion_repeat', 'values_outside',
    'peak_after_delay', 'tissue_outside', 'metal', 'contrast_before',
    'vein_behind_artery', *SUPPLIED_CHECKS,
}  # fmt: skip


@pytest.fixture(scope='module')
def second(site):
    """Run from the maps, masks and reference that the first run wrote."""
    options = ('--nprocs', '1', '--participant-label', '01')
    again = call(site.folder, 'second', *options, work='second_work', dataset='first')
    assert again.returncode == 0, again.stderr
    return SimpleNamespace(out=site.folder / 'second', run=again)


def test_maps_alone_give_the_same_voxels(second, where, site):
    """What enters later ends in the same maps and masks, bit by bit."""
    names = [name for name in IMAGES if name not in NOT_FROM_MAPS]
    assert {'rcbf_local', 'rcbv_local', 'rcbf_mirrored', 'core_local', 'core_global'} < set(names)
    differ = []
    for name in names:
        images = [nb.load(where(name)), nb.load(second.out / where(name).relative_to(site.out))]
        same = np.array_equal(*(np.asarray(image.dataobj) for image in images))
        differ += [] if same and np.array_equal(*(image.affine for image in images)) else [name]
    assert differ == []


def test_maps_alone_give_the_same_volumes(second, where, site):
    path = second.out / where('volumes').relative_to(site.out)
    tables = [pd.read_csv(each, sep='\t') for each in (where('volumes'), path)]
    calibrated = tables[0][tables[0]['measure'] != 'volume uncalibrated']
    # noise is known from a series alone
    limits = ['ci_low_ml', 'ci_high_ml']
    lesions = calibrated['region'].isin(['core', 'hypoperfusion'])
    lesions &= calibrated['measure'] == 'volume'
    assert (calibrated[limits].notna().all(axis=1) == lesions).all()
    assert tables[1][limits].isna().all(axis=None)
    assert tables[1]['reason'].str.startswith('no interval').sum() == lesions.sum()
    told = [*limits, 'reason']
    calibrated = calibrated.reset_index(drop=True).drop(columns=told)
    pd.testing.assert_frame_equal(calibrated, tables[1].drop(columns=told))


def test_maps_alone_write_nothing_of_a_series(second, where, site):
    written = {path.name for path in (second.out / 'sub-01' / 'ct').glob('*.[nth][is5v]*')}
    absent = {where(name).name for name in NOT_FROM_MAPS}
    assert not written & absent


def test_quality_figures_of_the_series_are_not_available(second, where, site):
    path = second.out / where('quality').relative_to(site.out)
    (row,) = pd.read_csv(path, sep='\t', keep_default_na=False).to_dict('records')
    missing = {check.name for check in CHECKS if row[f'{check.name}_status'] == 'n/a'}
    assert missing == SERIES_CHECKS | {'mirror_similarity'}  # a CT is mirrored


def test_no_file_of_the_other_entry_stays(site, second):
    """Maps are taken into a folder that holds the files of the series."""
    shutil.copytree(site.out, site.folder / 'switched')
    options = ('--nprocs', '1', '--participant-label', '01')
    again = call(site.folder, 'switched', *options, work='second_work', dataset='first')
    assert again.returncode == 0, again.stderr
    assert re.search(r'removed \d+ files of an earlier run', again.stdout + again.stderr)
    written, left = (
        {path.name for path in (out / 'sub-01' / 'ct').iterdir()}
        for out in (second.out, site.folder / 'switched')
    )
    assert left == written


def test_every_source_of_maps_is_there(second):
    assert lost_sources(second.out) == []
    texts = [path.read_text() for path in second.out.glob('sub-01/ct/*.json')]
    assert not [text for text in texts if str(second.out.parent) in text]


def test_outputs_of_maps_are_valid(second):
    assert invalid(second.out) == []


def test_provenance_of_maps_ends_at_the_maps(second, where, capsys):
    path = second.out / 'sub-01' / 'ct' / where('core_local').name
    assert query.main([str(path)]) == 0
    tree = capsys.readouterr().out
    assert 'bids:raw:sub-01/ct/sub-01_tmax.nii.gz' in tree
    assert 'deconvolve' not in tree


def test_name_of_the_dataset_does_not_grow_from_run_to_run(second, site):
    assert described(second.out)['Name'] == described(site.out)['Name']


def test_report_tells_of_maps_made_elsewhere(second):
    page = (second.out / 'sub-01.html').read_text()
    assert 'Precomputed maps.' in page
    assert 'were precomputed by other software' in page
    assert 'Tikhonov' not in page
    assert len(list((second.out / 'sub-01' / 'figures').glob('*.svg'))) == 7


@pytest.fixture(scope='module')
def isles(site, where):
    """Run on maps as in ISLES'24: no sidecars, on the grid of an NCCT in the raw data beside.

    a has the NCCT, larger and finer; b none, relative CBF in percent, Tmax in ms and voxels in
    another order; c no Tmax; d maps of two grids; e an NCCT that lies elsewhere.
    """
    root = site.folder / 'isles'

    def give(participant, name, voxels, affine, folder='derivatives', inner='perfusion-maps'):
        home = root / folder / f'sub-{participant}' / 'ses-01' / inner
        home.mkdir(parents=True, exist_ok=True)
        nb.save(nb.Nifti1Image(voxels, affine), home / f'sub-{participant}_ses-01_{name}.nii.gz')

    maps = {name: nb.load(where(name)) for name in ('cbf', 'cbv', 'mtt', 'tmax')}
    arrays = {name: np.asarray(image.dataobj) for name, image in maps.items()}
    affine = maps['cbf'].affine
    for name, array in arrays.items():
        give('a', f'space-ncct_{name}', array, affine)
    density = nb.load(where('reference'))
    fine = np.pad(np.asarray(density.dataobj), ((5, 5), (5, 5), (2, 2)), mode='edge')
    fine = np.repeat(np.repeat(fine, 2, axis=0), 2, axis=1)
    placed = affine @ np.diag([0.5, 0.5, 1, 1])
    placed[:3, 3] = (affine @ [-5.25, -5.25, -2, 1])[:3]
    give('a', 'ncct', np.round(fine).astype(np.int16), placed, 'raw_data', '')
    for name, array in arrays.items():
        give('e', f'space-ncct_{name}', array, affine)
    placed[0, 3] += 120
    give('e', 'ncct', np.round(fine).astype(np.int16), placed, 'raw_data', '')
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = HEAD.matrix - 1
    percent = {'rcbf': arrays['cbf'] * 2, 'tmax': arrays['tmax'] * 1000, 'cbv': arrays['cbv']}
    for name, array in percent.items():
        give('b', f'space-ncct_{name}', array[::-1], affine @ flip)
    give('c', 'space-ncct_cbf', arrays['cbf'], affine)
    give('d', 'space-ncct_tmax', arrays['tmax'], affine)
    give('d', 'space-ncct_cbf', arrays['cbf'][:, :, 1:], affine)
    run = call(site.folder, 'isles_out', '--nprocs', '1', work='isles_work',
               dataset='isles/derivatives')  # fmt: skip
    out = site.folder / 'isles_out'

    def found(participant, name):
        start = out / f'sub-{participant}' / 'ses-01' / 'ct' / f'sub-{participant}_ses-01_'
        return start.with_name(f'{start.name}{TABLE[name].ending}')

    return SimpleNamespace(run=run, found=found, affine=affine, out=out)


def overlap(one, two):
    one, two = (nb.as_closest_canonical(nb.load(path)).get_fdata() > 0 for path in (one, two))
    return 2 * (one & two).sum() / (one.sum() + two.sum())


@pytest.mark.parametrize('participant', ['a', 'b'])
@pytest.mark.parametrize('name', ['brain_mask', 'tissue_mask', 'hypoperfusion', 'core_global'])
def test_masks_made_from_maps_are_nearly_those_of_the_series(isles, where, participant, name):
    # without a CT, tissue of hardly any flow is taken for CSF, and with it the depth of a core
    deep = {'core_global': 0.88, 'hypoperfusion': 0.93} if participant == 'b' else {}
    least = deep.get(name, 0.95)
    assert overlap(isles.found(participant, name), where(name)) > least


def test_local_core_with_the_ncct_is_nearly_that_of_the_series(isles, where):
    assert overlap(isles.found('a', 'core_local'), where('core_local')) > 0.9


def test_without_a_ct_the_mirrored_map_is_warned_of(isles):
    table = pd.read_csv(isles.found('b', 'quality'), sep='\t', keep_default_na=False)
    assert table['reference_density_status'].item() == 'warn'
    verdict = 'look first: A perfusion map was mirrored instead of a CT'
    assert f'sub-b_ses-01  ok      {verdict}' in isles.run.stdout
    assert 'for want of a CT, the map of CBV' in isles.run.stdout


def test_a_ct_that_lies_elsewhere_shaped_nothing(isles):
    """Sources, settings and limit are those of maps without a CT."""
    assert 'baseline CT not used' in isles.run.stdout
    folder = isles.found('e', 'tmax').parent
    told = {
        path.name.removeprefix('sub-e_ses-01_'): json.loads(path.read_text())
        for path in folder.glob('*.json')
    }
    assert not [name for name, each in told.items() if '_ncct.nii.gz' in str(each['Sources'])]
    used = {'masks', 'kinetics', 'symmetry'}
    assert set(told['desc-brain_mask.json']['Settings']) == used
    assert set(told['desc-baseline_ctpref.json']['Settings']) == used
    limit = MethodSettings().symmetry.map_least_similarity
    assert (
        told['seg-hemisphere_dseg.json']['Settings']['symmetry']['map_least_similarity'] == limit
    )
    assert told['desc-qualitycontrol_ctp.json']['mirror_similarity']['FailBelow'] == limit
    near = isles.found('a', 'brain_mask')
    assert any('_ncct.nii.gz' in each for each in sidecar(near)['Sources'])
    assert set(sidecar(near)['Settings']) == used


def test_outputs_beside_a_ct_and_alone_are_valid(isles):
    assert list(isles.out.glob('sub-b/**/*_desc-baseline_ctpref.nii.gz'))
    assert invalid(isles.out) == []
    assert lost_sources(isles.out) == []


def test_assumed_units_are_told_in_sidecars_and_log(isles):
    told = sidecar(isles.found('b', 'tmax'))
    assert told['Units'] == 's'
    assert told['Measured']['tmax_unit'] == 'ms'
    assert told['Measured']['rcbf_unit'] == 'percent'
    assert 'Tmax: no unit is stated, taken as ms' in isles.run.stdout


def test_outputs_keep_the_voxel_order_of_the_maps(isles):
    for participant, sign in (('a', 1), ('b', -1)):
        for name in ('tmax', 'rcbf_global', 'tissue_mask'):
            image = nb.load(isles.found(participant, name))
            np.testing.assert_allclose(image.affine[:3, 0], sign * isles.affine[:3, 0], atol=1e-5)


def test_relative_flow_is_written_as_relative_alone(isles, where):
    assert not isles.found('b', 'cbf').exists()
    values = [nb.as_closest_canonical(nb.load(path)).get_fdata() for path in
              (isles.found('b', 'rcbf_global'), where('rcbf_global'))]  # fmt: skip
    both = (values[0] > 0) & (values[1] > 0)
    np.testing.assert_allclose(values[0][both], values[1][both], rtol=0.02)


@pytest.mark.parametrize(
    'sentence',
    [
        'sub-c_ses-01 has no Tmax map',
        '_cbf.nii.gz and sub-d_ses-01_space-ncct_tmax.nii.gz have different grids',
    ],
)
def test_maps_that_cannot_be_used_are_one_sentence(isles, sentence):
    assert isles.run.returncode == 1
    assert [line for line in isles.run.stderr.splitlines() if sentence in line]
    assert 'Traceback' not in isles.run.stdout + isles.run.stderr


# -- instead of a run


def test_a_dry_run_names_every_file_of_a_run_and_writes_none(site):
    before = sorted(site.folder.iterdir())
    options = ('--participant-label', '01', '--dry-run', '-v')
    plan = call(site.folder, 'nowhere', *options, work='nowhere_work')
    assert plan.returncode == 0, plan.stderr
    assert sorted(site.folder.iterdir()) == before
    named = {line.split()[-1] for line in plan.stdout.splitlines() if ' writes ' in line}
    for row in TABLE.values():
        assert f'sub-01/ct/sub-01_{row.ending}' in named
    assert 'reads   ctp: bids:raw:sub-01/ct/sub-01_ctp.nii.gz' in plan.stdout


def test_reports_alone_are_those_of_the_run_and_link_figures_to_nodes(site):
    page = site.out / 'sub-01.html'
    before = re.sub('written [^<]+', '', page.read_text())
    files = {path: path.stat().st_mtime_ns for path in site.out.glob('sub-*/**/*')}
    again = call(site.folder, 'first', '--reports-only', '--core-rcbf', '0.2')
    assert again.returncode == 1, again.stderr  # as in the run, two of three series have failed
    assert 'sub-03  failed  no contrast bolus' in again.stdout
    assert re.sub('written [^<]+', '', page.read_text()) == before
    assert files == {path: path.stat().st_mtime_ns for path in site.out.glob('sub-*/**/*')}
    for name in ('quality.plot_series', 'deconvolution.deconvolve', 'preprocessing.make_masks'):
        assert f'href="#graph1-nodes-{name}"' in before
        assert f'id="graph1-nodes-{name}"' in before


def test_the_config_of_a_run_tells_nothing_of_the_machine(site):
    (file,) = (site.out / 'logs').glob('run-*.toml')
    assert str(site.folder) not in file.read_text()


# -- wrong commands


def complaint(folder, code):
    """Run a command that cannot work; give its one sentence."""
    result = call(folder, 'out')
    assert result.returncode == code
    assert result.stderr.startswith('ctpprep: error: ')
    assert result.stderr.count('\n') == 1
    assert not list((folder / 'out').glob('[!l]*'))  # perhaps logs/, with the status
    return result.stderr


def test_a_wrong_path_is_one_sentence(tmp_path):
    assert 'raw is not a folder' in complaint(tmp_path, 2)


def test_a_dataset_without_perfusion_is_one_sentence(tmp_path):
    path = tmp_path / 'raw' / 'sub-01' / 'ct' / 'sub-01_ncct.nii.gz'
    path.parent.mkdir(parents=True)
    nb.save(nb.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), path)
    assert 'no CT perfusion series' in complaint(tmp_path, 2)


def test_missing_timing_is_one_sentence_that_tells_the_remedy(tmp_path):
    path = tmp_path / 'raw' / 'sub-01' / 'ct' / 'sub-01_ctp.nii.gz'
    path.parent.mkdir(parents=True)
    image = nb.Nifti1Image(np.zeros((4, 4, 4, 12), np.int16), np.diag([2.0, 2, 5, 1]))
    nb.save(image, path)
    sentence = complaint(tmp_path, 1)
    assert 'no acquisition times' in sentence
    assert '--frame-interval' in sentence
