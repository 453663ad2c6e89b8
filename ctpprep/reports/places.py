# SPDX-License-Identifier: Apache-2.0
"""Where on the page the evidence for a check is shown."""

from collections.abc import Collection, Sequence

#: Checks by the figure that shows what they measure; those that are missing have the quality table.
SHOWN_IN = {
    'motion': ('displacement_max', 'frames_rejected'),
    'curves': (
        'contrast_to_noise', 'baseline_frames', 'arrival', 'scan_after_peak', 'scan_reserve',
        'vof_end', 'vof_width', 'aif_peak', 'aif_width', 'aif_area', 'aif_explained',
        'aif_over_tissue', 'aif_before', 'aif_undershoot', 'tissue_lag', 'vof_lag', 'frame_order',
        'tissue_unexplained', 'drift', 'aif_likeness',
    ),
    'maps': (
        'noise_raw', 'noise_denoised', 'normal_tissue', 'missing_values', 'values_outside',
        'flow_volume_time', 'reference_cbf', 'reference_mtt', 'flow_spread', 'flow_structure',
        'flow_asymmetry', 'tmax_structure', 'slice_step', 'peak_per_delay', 'peak_after_delay',
        'map_likeness',
    ),
    'tmaxhist': ('healthy_side_tmax', 'tmax_at_zero', 'tmax_spread', 'side_confidence'),
    'masks': (
        'brain_density', 'hyperdense', 'skull_gap', 'coverage', 'sector_filled', 'tissue_of_brain',
        'tissue_outside', 'side_of_patient', 'metal', 'mask_outline',
        'contrast_before', 'vein_behind_artery',
    ),
    'mirror': (
        'mirror_distance', 'mirror_similarity', 'mirror_folding', 'reference_density',
        'brain_asymmetry', 'coverage_asymmetry', 'homologues_return', 'homologues_crossing',
    ),
    'rcbf': (
        'unassessable', 'healthy_side_hypoperfusion', 'healthy_side_low_flow', 'old_infarct',
        'core_missed', 'core_disagreement', 'core_disagreement_share', 'reference_median',
        'relative_to_flow', 'relative_to_homologue', 'local_median',
    ),
    'lesions': (
        'core_hypodense', 'lesion_outside', 'lesion_agreement', 'hypoperfusion_repeat',
    ),
}  # fmt: skip
FIGURE_OF = {check: figure for figure, checks in SHOWN_IN.items() for check in checks}
#: The table of checks.
QUALITY = 'quality'
#: More places are found in the table of checks.
MOST_PLACES = 3


def find_places(
    deciding: Sequence[str], figures: Collection[str], withheld: bool = False
) -> list[str]:
    """Find what a reader should look at to judge a verdict.

    Parameters
    ----------
    deciding : sequence of str
        Names of the checks that decided.
    figures : collection of str
        Names of the figures of the page.
    withheld : bool
        Whether there is no local map: then the mirror registration comes first.

    Returns
    -------
    list of str
        Names of figures, or `QUALITY`, without repetition; at most `MOST_PLACES`.

    Examples
    --------
    >>> find_places(['drift', 'arrival', 'mirror_folding'], ['curves', 'maps'])
    ['curves', 'quality']
    """
    wanted = ['mirror'] if withheld else []
    wanted += [FIGURE_OF.get(check, QUALITY) for check in deciding]
    shown = (name if name in figures else QUALITY for name in wanted or [QUALITY])
    return list(dict.fromkeys(shown))[:MOST_PLACES]
