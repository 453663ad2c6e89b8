# SPDX-License-Identifier: Apache-2.0
"""AIF, VOF and perfusion maps from the corrected series."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from nipype.interfaces.base import File, TraitedSpec, traits

from ctpprep.interfaces.base import ImageInputSpec, StageInputSpec, StageInterface
from ctpprep.interfaces.evidence import keep_evidence
from ctpprep.interfaces.preprocessing import frame_weights
from ctpprep.io import nifti
from ctpprep.perfusion.estimation import estimate_maps
from ctpprep.perfusion.input_functions import aif_scale, find_vessels
from ctpprep.perfusion.maps import MAPS


class _FindVesselsInputSpec(ImageInputSpec):
    ctp_corrected = File(exists=True, mandatory=True, desc='corrected series, HU')
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    confounds = File(exists=True, mandatory=True, desc='contains the weight of each frame, tsv')
    bolus = File(exists=True, mandatory=True, desc='arrival and baseline frames, json')
    intracranial_mask = File(exists=True, mandatory=True, desc='search region of AIF and VOF')
    tissue_mask = File(exists=True, mandatory=True)
    damage = File(exists=True, mandatory=True, desc='change of each voxel by motion, HU')
    supplied_curves = File(exists=True, desc='time (s), aif and optionally vof (HU), tsv')
    supplied_aif_mask = File(exists=True, desc='voxels of the AIF, on any grid of the same space')


class _FindVesselsOutputSpec(TraitedSpec):
    curves = File(
        exists=True, desc='time (s), aif, vof, tissue (HU), weight; one row per frame, tsv'
    )
    aif_mask = File(exists=True, desc='empty if the AIF was supplied as a curve')
    vof_mask = File(exists=True, desc='empty if the VOF was supplied, or if there is none')


class FindVessels(StageInterface):
    """Find the AIF and the VOF, or use those supplied by the user.

    A supplied AIF needs no VOF; without one, the column ``vof`` is n/a.
    """

    input_spec = _FindVesselsInputSpec
    output_spec = _FindVesselsOutputSpec

    def _run_interface(self, runtime):
        inputs, bolus = self.inputs, self.load_json('bolus')
        ctp, affine = nifti.load(inputs.ctp_corrected, dtype=None)
        masks = SimpleNamespace(
            intracranial=self.load_mask('intracranial_mask'), tissue=self.load_mask('tissue_mask'),
            n_baseline=bolus['n_baseline'], arrival_s=bolus['arrival_s'],
        )  # fmt: skip
        series = (ctp, np.load(inputs.sample_times), affine)
        quality = {'weights': frame_weights(inputs.confounds), 'damage': self.load('damage')}
        with keep_evidence(runtime, *series, self.method, masks=masks, **quality):
            vessels = find_vessels(
                *series, masks, self.method, supplied=self.load_aif(), **quality
            )
        self.save_table(runtime, 'curves', _tabulate(vessels), float_format='%.6g')
        self.save_images(
            runtime, affine, inputs.ctp_corrected, aif_mask=vessels.aif_mask,
            vof_mask=vessels.vof_mask,
        )  # fmt: skip
        return runtime


def _tabulate(vessels):
    """Tabulate the curves; times keep their digits, since they may be times of day in s."""
    columns = {'time': [f'{time:.12g}' for time in np.round(vessels.times, 4)]}
    columns |= {name: getattr(vessels, name) for name in ('aif', 'vof', 'tissue')}
    if vessels.automatic is not None:
        columns['aif_automatic'] = vessels.automatic
    return pd.DataFrame(columns | {'weight': vessels.weights})


class _DeconvolveInputSpec(StageInputSpec):
    ctp_corrected = File(exists=True, mandatory=True, desc='corrected series, HU')
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    confounds = File(exists=True, mandatory=True, desc='contains the weight of each frame, tsv')
    bolus = File(exists=True, mandatory=True, desc='arrival and baseline frames, json')
    tissue_mask = File(exists=True, mandatory=True, desc='where maps are computed')
    pure_mask = File(exists=True, mandatory=True, desc='source of the denoising')
    curves = File(exists=True, mandatory=True, desc='time (s), aif (HU above baseline), tsv')
    functions = traits.Dict(
        traits.Str, traits.Str, desc='digests of the user functions, by MODULE:FUNCTION'
    )
    num_threads = traits.Int(1, usedefault=True, nohash=True)


class _DeconvolveOutputSpec(TraitedSpec):
    cbf = File(exists=True, desc='mL/100 g/min')
    cbv = File(exists=True, desc='mL/100 g')
    mtt = File(exists=True, desc='s')
    tmax = File(exists=True, desc='s')
    ttp = File(exists=True, desc='s')
    noise = File(exists=True, desc='noise of the denoised curves, HU')
    cbf_noise = File(
        exists=True,
        desc='samples of its noise, mL/100 g/min, 4D; absent for short or undenoised series',
    )
    tmax_repeats = File(
        exists=True, desc='Tmax with noise added and subtracted, s, 4D; absent where cbf_noise is'
    )
    tissue_share = File(exists=True, desc='tissue fraction of each voxel')
    tissue_curves = File(
        exists=True, desc='denoised curves as scores of temporal components, HU and s, npz'
    )
    deconvolution = File(exists=True, desc='lambda, Tmax offset and noise as measured, json')


class Deconvolve(StageInterface):
    """Denoise the tissue curves and deconvolve them at their true sample times.

    One node does denoising, deconvolution and maps, so that no intermediate 4D file is written.
    """

    input_spec = _DeconvolveInputSpec
    output_spec = _DeconvolveOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        ctp, affine = nifti.load(inputs.ctp_corrected, dtype=None)
        aif_times, aif, scale = _load_aif(inputs.curves, self.method.vessels.aif_scaling)
        maps = estimate_maps(
            ctp, np.load(inputs.sample_times), nifti.voxel_size_mm(affine), aif_times, aif,
            self.load_mask('tissue_mask'), self.load_mask('pure_mask'),
            self.load_json('bolus')['n_baseline'], self.method,
            weights=frame_weights(inputs.confounds), num_threads=inputs.num_threads,
        )  # fmt: skip
        names = (*MAPS, 'noise', 'cbf_noise', 'tmax_repeats', 'tissue_share')
        self.save_images(
            runtime, affine, inputs.tissue_mask, **{name: getattr(maps, name) for name in names}
        )
        path = Path(runtime.cwd) / 'tissue_curves.npz'
        np.savez(path, **vars(maps.curves))
        self._results['tissue_curves'] = str(path)
        self.save_json(runtime, deconvolution=maps.measured | {'aif_scale': scale})
        return runtime


def _load_aif(path, scaling):
    """Read times and AIF of the usable frames, scaled to the VOF, and the factor."""
    table = pd.read_csv(path, sep='\t')
    if 'weight' in table:
        table = table[table['weight'] > 0]
    times, aif = table['time'].to_numpy(), table['aif'].to_numpy()
    vof = table['vof'].to_numpy() if 'vof' in table else np.full(len(aif), np.nan)
    scale = aif_scale(times, aif, vof, scaling)
    return times, scale * aif, scale
