# SPDX-License-Identifier: Apache-2.0
"""The graph of a run from tiny nodes; that of the pipeline is in test_end_to_end."""

import json
import shutil
import time

import pytest
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec
from nipype.pipeline.engine import Node, Workflow

from ctpprep.cli import make_parser, read_settings
from ctpprep.engine.run import work_folder
from ctpprep.inputs.series import CTPSeries
from ctpprep.provenance.record import write_provenance
from ctpprep.settings import MethodSettings


class _CopyInputSpec(BaseInterfaceInputSpec):
    path = File(exists=True, mandatory=True)


class _CopyOutputSpec(TraitedSpec):
    out = File(exists=True)


class Copy(SimpleInterface):
    """Copy a file into the folder of the node."""

    input_spec, output_spec = _CopyInputSpec, _CopyOutputSpec

    def _run_interface(self, runtime):
        self._results['out'] = shutil.copy(self.inputs.path, f'{runtime.cwd}/made.txt')
        return runtime


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run two series, each through two nodes, as a command would; give the records by their ids."""
    for label in ('1', '2'):
        (tmp_path / 'raw' / f'sub-{label}').mkdir(parents=True)
        (tmp_path / 'raw' / f'sub-{label}' / 'ctp.txt').write_text(f'series {label}')
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')

    def call(*options, raw='raw'):
        began = time.time()
        command = [str(tmp_path / raw), str(tmp_path / 'out'), 'participant', *options]
        settings = read_settings(make_parser().parse_args(command))[1]
        top, series = Workflow('ctpprep_wf', base_dir=str(work_folder(settings))), []
        top.config['execution'] = {'hash_method': 'content'}
        for label in ('1', '2'):
            path = settings.bids_dir / f'sub-{label}' / 'ctp.txt'
            one, two = Node(Copy(), 'first'), Node(Copy(), 'second', overwrite=True)
            one.inputs.path = str(path)
            uri = f'bids:raw:sub-{label}/ctp.txt'
            series.append(CTPSeries(path, f'sub-{label}', label, None, '', uri, (), (), '', {}))
            inner = Workflow(series[-1].workflow_name)
            inner.connect(one, 'out', two, 'path')
            top.add_nodes([inner])
        top.run()
        software = {'ctpprep': '1'}
        graph = write_provenance(top, series, MethodSettings(), settings, began, software)
        return {record['Id']: record for record in json.loads(graph.read_text())['@graph']}

    return call


def files_of(records):
    return {name for name, record in records.items() if record['Type'] == 'Entity'}


EXPECTED = {
    *(f'bids:raw:sub-{n}/ctp.txt' for n in '12'),
    *(f'run:sub_{n}_wf/{step}/made.txt' for n in '12' for step in ('first', 'second')),
}


@pytest.mark.parametrize('folder', ['../work', 'link/work'])
def test_files_of_the_work_folder_are_told_apart_by_whatever_path(run, tmp_path, folder):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'here' / 'link').symlink_to(tmp_path / 'elsewhere')
    for _ in range(2):  # the second run takes the steps up
        records = run('-w', folder)
        assert files_of(records) == EXPECTED
    assert records['run:sub_1_wf/second']['Used'] == ['run:sub_1_wf/first/made.txt']


def test_a_reused_step_names_the_series_however_the_dataset_is_called(run, tmp_path):
    run('-w', '../work')
    (tmp_path / 'raw').rename(tmp_path / 'moved')
    records = run('-w', '../work', raw='moved')
    assert records['run:sub_2_wf/first']['Status'] == 'reused'
    assert records['run:sub_2_wf/first']['Used'] == ['bids:raw:sub-2/ctp.txt']
    assert files_of(records) == EXPECTED


def test_files_from_nowhere_are_not_taken_for_one_another(run, tmp_path, monkeypatch):
    monkeypatch.setattr(CTPSeries, 'files', {})
    strangers = [name for name in files_of(run()) if name.startswith('run:elsewhere/')]
    assert len(strangers) == 2
    assert not [name for name in strangers if str(tmp_path) in name]
