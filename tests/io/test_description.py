# SPDX-License-Identifier: Apache-2.0
"""The description of the derivatives dataset: its sources and links, also of concurrent calls."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from ctpprep.io.description import read_container, write_dataset_description


def read_description(folder):
    return json.loads((folder / 'dataset_description.json').read_text())


def test_derivatives_are_described_with_a_link_to_their_source(tmp_path):
    raw, out = tmp_path / 'raw', tmp_path / 'raw' / 'derivatives' / 'ctpprep'
    raw.mkdir()
    (raw / 'dataset_description.json').write_text('{"Name": "Heads", "DatasetDOI": "doi:1/2"}')
    write_dataset_description(out, {'raw': raw}, '1.2')
    description = read_description(out)
    assert description['DatasetType'] == 'derivative'
    assert description['GeneratedBy'] == [{'Name': 'ctpprep', 'Version': '1.2'}]
    assert (out / description['DatasetLinks']['raw']).resolve() == raw.resolve()
    assert description['SourceDatasets'][0]['DOI'] == 'doi:1/2'
    assert 'Heads' in description['Name']
    assert str(tmp_path) not in json.dumps(description)


def test_source_without_a_description_is_accepted(tmp_path):
    (tmp_path / 'raw').mkdir()
    write_dataset_description(tmp_path / 'out', {'raw': tmp_path / 'raw'}, '1.2')
    assert (tmp_path / 'out' / 'dataset_description.json').exists()
    assert '**/ct\n' in (tmp_path / 'out' / '.bidsignore').read_text()


def test_container_is_described(tmp_path, monkeypatch):
    monkeypatch.setenv('CTPPREP_CONTAINER', 'ctpprep:1.2')
    (tmp_path / 'raw').mkdir()
    write_dataset_description(tmp_path / 'out', {'raw': tmp_path / 'raw'}, '1.2')
    description = read_description(tmp_path / 'out')
    assert description['GeneratedBy'][0]['Container'] == {'Type': 'docker', 'Tag': 'ctpprep:1.2'}
    monkeypatch.setenv('APPTAINER_NAME', 'ctpprep.sif')
    assert read_container()['Type'] == 'singularity'


def test_prefix_of_the_name_is_not_repeated(tmp_path):
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'raw' / 'dataset_description.json').write_text('{"Name": "Heads"}')
    for source, out in (('raw', 'first'), ('first', 'second')):
        write_dataset_description(tmp_path / out, {'raw': tmp_path / source}, '1.2')
        description = read_description(tmp_path / out)
        assert description['Name'] == 'ctpprep derivatives of Heads'


def test_datasets_of_supplied_files_are_linked(tmp_path):
    links = {'raw': tmp_path / 'raw', 'manual': tmp_path / 'hand' / 'made'}
    links['raw'].mkdir()
    write_dataset_description(tmp_path / 'out', links, '1.2')
    description = read_description(tmp_path / 'out')
    assert description['DatasetLinks'] == {'raw': '../raw', 'manual': '../hand/made'}
    assert {'URL': 'bids:manual:'} in description['SourceDatasets']


def read_links(out):
    return read_description(out)['DatasetLinks']


def test_links_of_earlier_calls_are_kept(tmp_path):
    for name in ('raw', 'one', 'two'):
        (tmp_path / name).mkdir()
    (tmp_path / 'one' / 'dataset_description.json').write_text('{"DatasetDOI": "doi:1/2"}')
    for name in ('one', 'two'):
        links = {'raw': tmp_path / 'raw', name: tmp_path / name}
        write_dataset_description(tmp_path / 'out', links, '1.2')
    assert read_links(tmp_path / 'out') == {'raw': '../raw', 'one': '../one', 'two': '../two'}
    description = read_description(tmp_path / 'out')
    assert {'URL': 'bids:one:', 'DOI': 'doi:1/2'} in description['SourceDatasets']


def test_links_of_concurrent_calls_are_kept(tmp_path):
    (tmp_path / 'raw').mkdir()
    names = [f'n{number}' for number in range(24)]

    def describe(name):
        links = {'raw': tmp_path / 'raw', name: tmp_path / name}
        write_dataset_description(tmp_path / 'out', links, '1.2')

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(describe, names))
    assert read_links(tmp_path / 'out').keys() == {'raw', *names}


@pytest.mark.parametrize('raw', ['here/raw', 'raw', 'link/../raw'])
def test_links_resolve_if_the_output_folder_is_a_symlink(tmp_path, raw):
    (tmp_path / 'there' / 'deep').mkdir(parents=True)
    (tmp_path / 'here').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'here')
    (tmp_path / raw).mkdir()
    out = tmp_path / 'here' / 'out'
    out.symlink_to(tmp_path / 'there' / 'deep')
    write_dataset_description(out, {'raw': tmp_path / raw}, '1.2')
    assert (out / read_links(out)['raw']).samefile(tmp_path / raw)
