# SPDX-License-Identifier: Apache-2.0
"""Figures are drawn with the thresholds of the masks and go to their participant."""

from pathlib import Path

import pytest

from ctpprep.inputs.series import CTPSeries
from ctpprep.settings import MethodSettings, RunSettings
from ctpprep.workflows.quality import init_quality_wf


@pytest.fixture
def workflow(tmp_path):
    series = CTPSeries(
        Path('x_ctp.nii.gz'), 'sub-01_ses-a', '01', 'a', 'sub-01/ses-a/ct', '', (), (), '', {}
    )
    run = RunSettings(tmp_path / 'raw', tmp_path / 'out', tmp_path / 'work')
    return init_quality_wf(series, MethodSettings.of(core_rcbf=0.25, hypoperfusion_tmax=7.0), run)


def test_figures_name_the_series_and_its_thresholds(workflow):
    inputs = workflow.get_node('plot_series').inputs
    lesion = MethodSettings.of(core_rcbf=0.25, hypoperfusion_tmax=7.0).as_dict('lesion')
    assert (inputs.prefix, inputs.settings) == ('sub-01_ses-a', lesion)
    assert workflow.get_node('assess_quality').inputs.settings['lesion'] == lesion['lesion']


def test_figures_go_beside_the_report_of_the_participant(workflow, tmp_path):
    """One folder for all sessions: the report of the participant shows all."""
    node = workflow.get_node('write_figures')
    assert node.inputs.folder == str(tmp_path / 'out' / 'sub-01' / 'figures')
    assert node.overwrite  # figures that somebody removed come back
