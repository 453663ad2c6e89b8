# SPDX-License-Identifier: Apache-2.0
"""The outputs that each figure shows."""

# figure: its inputs, without masks that only limit the area and images in the background
DRAWN_FROM = {
    'summary': ('core_global', 'core_local', 'hypoperfusion', 'curves', 'volumes', 'quality'),
    'maps': ('cbf', 'cbv', 'mtt', 'tmax', 'ttp'),
    'rcbf': ('rcbf_global', 'rcbf_local', 'core_global', 'core_local', 'hypoperfusion'),
    'lesions': ('core_global', 'core_local', 'hypoperfusion'),
    'followup': ('followup_mask', 'core_global', 'core_local', 'hypoperfusion'),
    'probability': ('probability_global', 'probability_local', 'core_global', 'core_local'),
    'tmaxhist': ('tmax', 'hemispheres'),
    'curves': ('curves', 'aif_mask', 'vof_mask'),
    'mirror': ('reference', 'reference_reflected', 'homologue_reference'),
    'regions': ('region_labels', 'core_global', 'core_local'),
    'masks': ('brain_mask', 'tissue_mask', 'hemispheres'),
    'motion': ('confounds',),
}
