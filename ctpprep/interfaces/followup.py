# SPDX-License-Identifier: Apache-2.0
"""The lesion of a follow-up image on the grid of the series, and what agrees with it."""

import json
from pathlib import Path

import pandas as pd
from nipype.interfaces.base import File, TraitedSpec, traits

from ctpprep.exceptions import PerfusionError
from ctpprep.interfaces.base import ImageInputSpec, StageInterface
from ctpprep.interfaces.segmentation import CORES, LesionInputSpec, load_maps
from ctpprep.io import nifti
from ctpprep.perfusion import followup
from ctpprep.perfusion.lesions import NORMALIZATIONS


class _PlaceLesionInputSpec(ImageInputSpec):
    lesion_mask = File(exists=True, desc='lesion mask; absent if it cannot be aligned')
    space = traits.Str(desc='space of the mask: ncct, image or series')
    left_out = traits.Str(desc='why the mask cannot be aligned')
    reference = File(exists=True, mandatory=True, desc='image on the grid of the maps')
    brain_mask = File(exists=True, mandatory=True)
    ncct_matrix = File(exists=True, desc='from points of the NCCT to the reference, json')
    followup_matrix = File(exists=True, desc='from points of the reference to the image, json')


class _PlaceLesionOutputSpec(TraitedSpec):
    followup_mask = File(exists=True, desc='the lesion on the grid of the maps')
    placed = File(exists=True, desc='shares of voxels on both grids, npz')
    followup = File(exists=True, desc='volume, coverage, alignment or why it was left out, json')


class PlaceLesion(StageInterface):
    """Bring a follow-up lesion to the grid of the maps; no mask if it cannot be aligned."""

    input_spec = _PlaceLesionInputSpec
    output_spec = _PlaceLesionOutputSpec

    def _run_interface(self, runtime):
        alignment = self.load_json('followup_matrix')
        facts = followup.describe_alignment(
            self.inputs.space, self.inputs.left_out or alignment.get('left_out', ''), alignment
        )
        if not facts['followup_left_out']:
            try:
                facts |= self._place(runtime, alignment)
            except PerfusionError as error:  # the perfusion maps do not need the mask
                facts['followup_left_out'] = str(error)
        self.save_json(runtime, followup=facts)
        return runtime

    def _place(self, runtime, alignment):
        """Save the lesion on the grid of the maps; return its facts, or why it is left out."""
        reference, affine = nifti.load(self.inputs.reference)
        mask, mask_affine = self.load_image(self.inputs.lesion_mask, dtype=None, straight=True)
        lesion, level = followup.find_lesion(mask)
        placed = followup.place_lesion(
            lesion, mask_affine,
            followup.to_mask(self.inputs.space, self.load_json('ncct_matrix'), alignment),
            reference.shape, affine,
        )  # fmt: skip
        if doubt := followup.doubt_of_place(placed.share, self.load_mask('brain_mask')):
            return {'followup_left_out': doubt}
        self._results['placed'] = placed.save(Path(runtime.cwd) / 'placed.npz')
        self.save_images(runtime, affine, self.inputs.reference, followup_mask=placed.mask)
        return placed.facts | level


class _CompareFollowUpInputSpec(LesionInputSpec):
    brain_mask = File(exists=True, mandatory=True)
    core_global = File(exists=True, mandatory=True)
    core_local = File(exists=True)
    hypoperfusion = File(exists=True, mandatory=True)
    rcbv_global = File(exists=True, desc='fraction')
    rcbv_local = File(exists=True, desc='fraction')
    probability_global = File(exists=True, desc='fraction')
    probability_local = File(exists=True, desc='fraction')
    symmetry = File(exists=True, desc='contains why local maps were withheld, json')
    placed = File(exists=True, desc='the follow-up lesion, npz; absent if it was left out')
    followup = File(exists=True, mandatory=True, desc='contains why it was left out, json')


class _CompareFollowUpOutputSpec(TraitedSpec):
    followup_agreement = File(exists=True, desc='tidy table, tsv')


class CompareFollowUp(StageInterface):
    """Compare maps, lesions and probabilities with the follow-up lesion.

    Without one, the table has a single row with the reason.
    """

    input_spec = _CompareFollowUpInputSpec
    output_spec = _CompareFollowUpOutputSpec

    def _run_interface(self, runtime):
        left_out = json.loads(Path(self.inputs.followup).read_text())['followup_left_out']
        rows = [followup.left_out_row(left_out)] if left_out else self._compare()
        self.save_table(
            runtime, 'followup_agreement', pd.DataFrame(rows, columns=list(followup.COLUMNS))
        )
        return runtime

    def _compare(self):
        """Read everything that is compared, and compare it."""
        maps, _ = load_maps(self)
        extra = followup.FollowUpMaps(
            self.load_mask('brain_mask'),
            self._existing(self.load_mask, (*CORES, 'hypoperfusion')),
            self._existing(self.load, [f'rcbv_{which}' for which in NORMALIZATIONS], 'rcbv_'),
            self._existing(
                self.load, [f'probability_{which}' for which in NORMALIZATIONS], 'probability_'
            ),
            self.load_json('symmetry').get('withheld', ''),
        )
        lesion = followup.PlacedLesion.load(self.inputs.placed)
        return followup.compare_followup(maps, extra, lesion, self.method)

    def _existing(self, load, names, prefix=''):
        loaded = {name.removeprefix(prefix): load(name) for name in names}
        return {name: array for name, array in loaded.items() if array is not None}
