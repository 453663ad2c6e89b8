# SPDX-License-Identifier: Apache-2.0
"""Figures of one series for the report."""

import dataclasses
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    File,
    TraitedSpec,
    isdefined,
    traits,
)

from ctpprep import figures
from ctpprep.figures.sources import DRAWN_FROM
from ctpprep.interfaces.base import StageInputSpec, StageInterface, is_density
from ctpprep.interfaces.summary import read_volumes, summarize
from ctpprep.io.nifti import load, voxel_size_mm
from ctpprep.io.processes import call_side_by_side
from ctpprep.io.tables import read_table

MASKS = (
    'brain_mask',
    'tissue_mask',
    'unassessable_mask',
    'core_global',
    'core_local',
    'hypoperfusion',
    'followup_mask',
)
PLACES = ('aif_mask', 'vof_mask')
MAPS = ('cbf', 'cbv', 'mtt', 'tmax', 'ttp', 'rcbf_global', 'rcbf_local')
PROBABILITIES = ('probability_global', 'probability_local')
# finer images are subsampled in plane for figures
FINEST_MM = 0.9
LABELS = ('hemispheres', 'region_labels')
OTHERS = ('reference', 'reference_reflected', 'homologue_reference', *LABELS)


class SeriesInputSpec(StageInputSpec):
    """Images and tables of a series to show; missing ones are skipped."""

    prefix = traits.Str(mandatory=True, desc='prefix of the file names, such as sub-01_ses-1')
    reference = File(exists=True, desc='mean of the pre-bolus frames, HU')
    brain_mask = File(exists=True)
    tissue_mask = File(exists=True, desc='voxels of the maps')
    unassessable_mask = File(exists=True, desc='tissue without a local value')
    cbf = File(exists=True, desc='mL/100 g/min')
    cbv = File(exists=True, desc='mL/100 g')
    mtt = File(exists=True, desc='s')
    tmax = File(exists=True, desc='s')
    rcbf_global = File(exists=True, desc='fraction')
    rcbf_local = File(exists=True, desc='fraction')
    core_global = File(exists=True)
    core_local = File(exists=True)
    hypoperfusion = File(exists=True)
    followup_mask = File(exists=True, desc='lesion of a later session')
    hemispheres = File(exists=True, desc='1 left, 2 right')
    reference_reflected = File(exists=True, desc='the reference reflected across the plane, HU')
    homologue_reference = File(exists=True, desc='the mirrored reference, registered, HU')
    aif_mask = File(exists=True)
    vof_mask = File(exists=True)
    curves = File(exists=True, desc='table with a column time (s) and curves in HU')
    entry = File(exists=True, desc='for precomputed maps: which image was mirrored, json')


class _PlotSeriesInputSpec(SeriesInputSpec):
    probability_global = File(exists=True, desc='probability of core, fraction')
    probability_local = File(exists=True, desc='probability of core, fraction')
    confounds = File(exists=True, desc='table of motion, one row per frame')
    ttp = File(exists=True, desc='s')
    volumes = File(exists=True, desc='table of volumes, with the affected side')
    region_labels = File(exists=True, desc='region of each voxel')
    region_names = File(exists=True, desc='names of the regions, json')
    quality = File(exists=True, desc='row of checks, for the verdict')
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc='processes that draw figures')


class _PlotSeriesOutputSpec(TraitedSpec):
    figures = traits.List(File(exists=True), desc='one SVG per figure; the summary also as a page')


class PlotSeries(StageInterface):
    """Draw every figure whose inputs exist."""

    input_spec = _PlotSeriesInputSpec
    output_spec = _PlotSeriesOutputSpec

    def _run_interface(self, runtime):
        images, size_mm = self._read_images()
        mosaics = plan_mosaics(
            images,
            size_mm,
            self.method.lesion.core_rcbf,
            self.method.lesion.hypoperfusion_tmax,
            'HU' if is_density(self.load_json('entry')) else '',
            self.load_json('region_names').get('Regions', {}),
        )
        charts = self._plan_charts(images, size_mm)
        plots = self._plan_summary(images, size_mm)
        plots += [(plot, self._path(what, '.svg')) for what, plot in (mosaics | charts).items()]
        self._results['figures'] = call_side_by_side(
            [partial(_save, plot, path) for plot, path in plots],
            self.inputs.num_threads,
            least_calls=1,
        )
        return runtime

    def _path(self, what, suffix):
        """Return the path of a figure."""
        return Path.cwd() / f'{self.inputs.prefix}_desc-{what}_ctp{suffix}'

    def _plan_summary(self, images, size_mm):
        """Plan the summary as a figure and as a page; none without a lesion or its tables."""
        summary = self._summarize(images, size_mm)
        if summary is None:
            return []
        plots = {
            suffix: partial(figures.plot_summary_page, *summary) for suffix in ('.pdf', '.png')
        }
        plots['.svg'] = partial(figures.plot_summary, summary[0])
        return [(plot, self._path('summary', suffix)) for suffix, plot in plots.items()]

    def _summarize(self, images, size_mm):
        """Collect what the summary shows; None without a lesion or its tables."""
        tables = (self.inputs.volumes, self.inputs.quality)
        if not all(isdefined(path) for path in tables) or 'reference' not in images:
            return None
        brain = images.get('brain_mask')
        summary = summarize(read_volumes(tables[0]), read_table(tables[1])[0])
        lesions = [
            figures.Lesion(images[number.name], number.title, number.criterion, number.value,
                           figures.COLOURS[number.name.partition('_')[0]], number.doubtful)
            for number in summary.numbers
            if number.name in images
        ]  # fmt: skip
        if {'core_global', 'core_local'} <= images.keys():
            alone = images['core_local'] & ~images['core_global']
            lesions = [
                dataclasses.replace(one, marked=alone, mark='local only',
                                    mark_colour=figures.COLOURS['added'])
                if one.mask is images['core_local'] else one
                for one in lesions
            ]  # fmt: skip
        if brain is None or not brain.any() or not lesions:
            return None
        curves = read_columns(self.inputs.curves)
        panel = figures.Panel(
            images['reference'], brain, lesions, size_mm, curves.get('time'),
            {name: curves[name] for name in ('aif', 'vof')
             if name in curves and np.isfinite(curves[name]).any()},
        )  # fmt: skip
        facts = [f'Affected side: {summary.side or "unknown"}.']
        facts[0] += f' Slab: {summary.slab}.' if summary.slab else ''
        facts += [summary.difference] if summary.difference else []
        facts.append(
            f'ctpprep {version("ctpprep")}. The 30 % threshold is not validated for the local core, which is '
            'a second opinion. Tested on simulated heads only.'
        )
        numbers = [
            (
                f'{one.title} ({criterion})',
                one.value,
                '\n'.join(filter(None, (one.detail, more))),
                one.doubtful,
            )
            for one in summary.numbers
            for criterion, _, more in [one.criterion.partition(', ')]
        ]
        heading = figures.Heading(
            self.inputs.prefix, summary.verdict.word, summary.reason, numbers, facts
        )
        return panel, heading

    def _read_images(self):
        """Read the connected images, with masks as bool, and the voxel size."""
        images, size_mm = {}, (1.0, 1.0, 1.0)
        for name in (*MASKS, *PLACES, *MAPS, *PROBABILITIES, *OTHERS):
            path = getattr(self.inputs, name)
            if isinstance(path, str) and path:
                images[name], affine = load(path)
                size_mm = voxel_size_mm(affine)
                if name in MASKS + PLACES:
                    images[name] = images[name] > 0
        # maps on the grid of an NCCT would result in a page of 30 MB
        step = [max(1, round(FINEST_MM / size)) for size in size_mm[:2]]
        images = {name: image[:: step[0], :: step[1]] for name, image in images.items()}
        return images, (size_mm[0] * step[0], size_mm[1] * step[1], size_mm[2])

    def _plan_charts(self, images, size_mm):
        """Plan the charts: curves, motion, and the histogram of Tmax."""
        planned = {}
        curves = read_columns(self.inputs.curves)
        if 'time' in curves:
            masks = {name[:3]: images[name] for name in PLACES if name in images}
            places = (masks, images.get('reference'), images.get('brain_mask'), size_mm)
            curves.pop('weight', None)  # not a curve
            # a supplied AIF may have no VOF
            curves = {name: curve for name, curve in curves.items() if np.isfinite(curve).any()}
            planned['curves'] = partial(figures.plot_curves, curves.pop('time'), curves, *places)
        confounds = read_columns(self.inputs.confounds)
        if confounds:
            planned['motion'] = partial(figures.plot_motion, confounds)
        if {'tmax', 'hemispheres'} <= images.keys():
            tissue = images.get('tissue_mask', images.get('brain_mask'))
            planned['tmaxhist'] = partial(
                figures.plot_tmax_histogram,
                images['tmax'],
                images['hemispheres'],
                np.ones(images['tmax'].shape, bool) if tissue is None else tissue,
                self.method.lesion.hypoperfusion_tmax,
                read_side(self.inputs.volumes),
            )
        return planned


def with_gaps(images, name):
    """Return a map with NaN where there is no value, so that it is not drawn as 0.

    Parameters
    ----------
    images : dict of str to (X, Y, Z) array
        By the names of the inputs of `PlotSeries`.
    name : str

    Returns
    -------
    (X, Y, Z) array of float
    """
    values = images[name].astype(float)
    if name in OTHERS:
        return values
    if (tissue := images.get('tissue_mask')) is not None:
        values[~tissue.astype(bool)] = np.nan
    if name == 'rcbf_local' and (none := images.get('unassessable_mask')) is not None:
        values[none.astype(bool)] = np.nan
    return values


def _save(plot, path):
    """Draw a figure and write it."""
    save = figures.save_svg if path.suffix == '.svg' else figures.save_page
    return str(save(plot(), path))


def plan_mosaics(
    images, size_mm, core_rcbf, hypoperfusion_tmax, grey_unit='HU', region_names=None
):
    """Plan the mosaics of slices for which `images` contains the inputs.

    Parameters
    ----------
    images : dict of str to (X, Y, Z) array
        By the names of the inputs of `PlotSeries`.
    size_mm : tuple of float
    core_rcbf, hypoperfusion_tmax : float
    grey_unit : str
        Unit of the reference image; '' if it is a perfusion map.
    region_names : dict of str to str, optional
        Of the values of ``region_labels``.

    Returns
    -------
    dict of str to callable
        They return a `matplotlib.figure.Figure`.
    """
    brain = images.get('brain_mask')
    if brain is None or not brain.any():
        return {}
    mosaic = figures.lay_out(brain, size_mm, grey_unit=grey_unit)
    planned = {}
    core = {
        name: images[f'core_{name}'] for name in ('global', 'local') if f'core_{name}' in images
    }
    hypoperfusion = images.get('hypoperfusion')
    reference = images.get('reference')
    thresholds = (core_rcbf, hypoperfusion_tmax)
    maps = {name: with_gaps(images, name) for name in MAPS[:5] if name in images}
    if maps:
        planned['maps'] = partial(figures.plot_maps, mosaic, maps, brain)
    if {'rcbf_global', 'reference'} <= images.keys():
        rcbf = {
            name: with_gaps(images, f'rcbf_{name}')
            for name in ('global', 'local')
            if f'rcbf_{name}' in images
        }
        planned['rcbf'] = partial(
            figures.plot_rcbf, mosaic, rcbf, core, hypoperfusion, reference, brain, *thresholds
        )
    if core and hypoperfusion is not None and reference is not None:
        planned['lesions'] = partial(
            figures.plot_lesions, mosaic, reference, core, hypoperfusion, brain, *thresholds
        )
    if core and 'followup_mask' in images and reference is not None and hypoperfusion is not None:
        planned['followup'] = partial(
            figures.plot_followup,
            mosaic,
            reference,
            core,
            hypoperfusion,
            images['followup_mask'],
            brain,
            core_rcbf,
        )
    probability = {
        name.removeprefix('probability_'): images[name] for name in PROBABILITIES if name in images
    }
    if probability and reference is not None:
        planned['probability'] = partial(
            figures.plot_probability, mosaic, probability, core, reference, brain, core_rcbf
        )
    if reference is not None:
        masks = {'brain': brain}
        if 'tissue_mask' in images:
            masks['tissue'] = images['tissue_mask']
        if 'hemispheres' in images:
            masks |= {'left': images['hemispheres'] == 1, 'right': images['hemispheres'] == 2}
        planned['masks'] = partial(figures.plot_masks, mosaic, reference, masks)
    if reference is not None and 'region_labels' in images:
        names = {int(label): name for label, name in (region_names or {}).items()}
        labels = np.rint(images['region_labels']).astype(int)
        planned['regions'] = partial(
            figures.plot_regions, mosaic, reference, labels, names, core, brain
        )
    mirrored = [images.get(name) for name in DRAWN_FROM['mirror']]
    if all(image is not None for image in mirrored):
        planned['mirror'] = partial(figures.plot_mirror, mosaic, *mirrored, brain)
    return planned


def read_columns(path):
    """Read a table of numbers by column; other values (n/a) become NaN.

    Parameters
    ----------
    path : str or Undefined

    Returns
    -------
    dict of str to (T,) array
        Empty if there is no table.
    """
    import pandas as pd

    if not (isinstance(path, str) and path):
        return {}
    table = pd.read_csv(path, sep='\t')
    return {
        str(name): pd.to_numeric(column, errors='coerce').to_numpy(float)
        for name, column in table.items()
    }


def read_side(path):
    """Read the affected side from a table of volumes; '' if it is missing."""
    import pandas as pd

    if not (isinstance(path, str) and path):
        return ''
    table = pd.read_csv(path, sep='\t', dtype=str)
    sides = table.get('affected_side', pd.Series(dtype=str)).dropna()
    return '' if sides.empty else sides.iloc[0]
