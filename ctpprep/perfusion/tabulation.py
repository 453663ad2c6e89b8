# SPDX-License-Identifier: Apache-2.0
"""The table of volumes of a series, with the measures known from commercial software.

Source: Olivot et al., Stroke 2014;45:1018, doi:10.1161/STROKEAHA.113.003857 (hypoperfusion intensity
ratio).
"""

import numpy as np

from ctpprep.perfusion.volumes import (
    DEFUSE3_RCBF,
    DEFUSE3_TMAX,
    cleaning_ml,
    mismatch_figures,
    uncalibrated_tmax,
    volume_ml,
)

COLUMNS = (
    'region', 'hemisphere', 'normalization', 'measure', 'threshold', 'volume_ml', 'ci_low_ml',
    'ci_high_ml', 'value', 'affected_side', 'side_confidence', 'side_rule', 'reason',
)  # fmt: skip
CORE = (
    'volume', 'volume unrestricted', 'volume within hypoperfusion', 'removed specks', 'removed rims',
    'hypodense',
)  # fmt: skip
# global core outside the local core, and the reverse
DIFFERENCE = ('removed by local', 'added by local')
NO_HOMOLOGUE = 'global without homologue'
# core counted as hypoperfusion although its Tmax is below the threshold
JOINED_CORE = 'joined core'
IN_ML = (*CORE, *DIFFERENCE, NO_HOMOLOGUE, JOINED_CORE, 'volume uncalibrated', 'difference')
# hypoperfusion intensity ratio: Tmax thresholds of numerator and denominator, s
INTENSITY_TMAX = (10.0, 6.0)


def volume_table(
    masks, cleaning, tmax, rcbf, rcbv_global, within, voxel_size_mm, side, hemisphere_name,
    *, core_rcbf, hypoperfusion_tmax, tmax_thresholds, rcbf_thresholds, segment, join_cores,
    tmax_offsets=None, withheld='', hypodense=None, intervals=None,
):  # fmt: skip
    """Tabulate all volumes of a series.

    Parameters
    ----------
    masks : dict of (X, Y, Z) arrays of bool
        ``core_global``, ``core_local``, ``hypoperfusion``, ``mismatch_global``,
        ``mismatch_local``.
    cleaning : dict of dict
        `cleaning_ml` of ``hypoperfusion``, ``core_global`` and ``core_local``.
    tmax : (X, Y, Z) array
        s.
    rcbf : dict of (X, Y, Z) arrays
        ``global`` and ``local``, fractions; a withheld local map and its masks are absent.
    rcbv_global : (X, Y, Z) array or None
        Fraction, for the CBV index.
    within : dict of (X, Y, Z) arrays of bool
        ``global`` and ``local``: tissue to which the thresholds are applied.
    voxel_size_mm : (3,) sequence of float
    side : AffectedSide
    hemisphere_name : {'left', 'right', 'both'}
        Hemisphere that the masks are restricted to.
    core_rcbf, hypoperfusion_tmax : float
        Thresholds of the masks.
    tmax_thresholds, rcbf_thresholds : sequence of float
        Further thresholds whose volumes are tabulated (s, fractions).
    segment : callable
        ``segment(candidate, within, of_flow)`` returns the `Lesion` of the voxels that pass a
        threshold of flow or, with holes filled, of Tmax.
    join_cores : callable
        ``join_cores(hypoperfusion, cores)`` returns hypoperfusion with the core that belongs to it.
    tmax_offsets : (Z,) sequence of float or None, optional
        Offset that calibration subtracted from Tmax in each slice, s; None for uncalibrated Tmax.
    withheld : str, optional
        Why there is no local map.
    hypodense : (X, Y, Z) array of bool, optional
        Hypodense tissue of either core; None if the reference image is a perfusion map.
    intervals : dict of (2,) sequences of float, optional
        Limits of the core volume, by normalization, and of ``hypoperfusion``, mL; ``reason`` states
        why there are none.

    Returns
    -------
    list of dict
        Rows with the keys of `COLUMNS`; values that do not apply are None. An empty region has the
        volume 0 and a reason. The rows of a withheld local map have no values, only the reason.
    """
    table = _Table(
        masks, cleaning, within, voxel_size_mm, side, hemisphere_name, segment, join_cores
    )
    slow = f'with Tmax > {hypoperfusion_tmax:g} s'
    table.add_lesion('hypoperfusion', None, hypoperfusion_tmax, slow)
    table.add_interval(intervals or {}, 'hypoperfusion')
    table.add_cleaning('hypoperfusion', None, hypoperfusion_tmax, slow)
    table.add_joined_core(hypoperfusion_tmax)
    for which in ('global', 'local'):
        if which in rcbf:
            table.add_core(which, core_rcbf, hypodense, intervals or {})
            table.add_mismatch(which, slow)
            masked = core_rcbf == DEFUSE3_RCBF and hypoperfusion_tmax == DEFUSE3_TMAX
            table.add_criteria(which, None if masked else (rcbf, tmax))
        else:
            table.add_absent(which, core_rcbf, withheld)
    for level in tmax_thresholds:
        table.add_threshold('tmax', None, level, tmax > level, f'with Tmax > {level:g} s')
    if tmax_offsets is not None:
        levels = [('hypoperfusion', hypoperfusion_tmax), *(('tmax', t) for t in tmax_thresholds)]
        table.add_uncalibrated(levels, uncalibrated_tmax(tmax, tmax_offsets), tmax_offsets)
    for which in ('global', 'local'):
        for level in rcbf_thresholds:
            if which in rcbf:
                low = f'with rCBF < {level:.0%}'
                table.add_threshold('rcbf', which, level, rcbf[which] < level, low)
            else:
                table.add('rcbf', which, 'volume', level, None, withheld)
    table.add_difference(rcbf, core_rcbf, withheld)
    table.add_unassessable(withheld)
    table.add_ratios(tmax, rcbv_global)
    return table.rows


class _Table:
    """The rows of a series, and the data they are computed from."""

    def __init__(
        self, masks, cleaning, within, voxel_size_mm, side, hemisphere_name, segment, join_cores
    ):  # fmt: skip
        self.masks, self.cleaning, self.within = masks, cleaning, within
        self.size_mm, self.side, self.hemisphere = voxel_size_mm, side, hemisphere_name
        self.segment, self.join_cores = segment, join_cores
        self.rows = []

    def ml(self, mask):
        return volume_ml(mask, self.size_mm)

    def add(self, region, normalization, measure, threshold, figure, reason=None):
        # values without a unit have their own column
        column = 'volume_ml' if measure in IN_ML else 'value'
        self.rows.append(
            dict.fromkeys(COLUMNS)
            | {
                'region': region,
                'hemisphere': self.hemisphere,
                'normalization': normalization,
                'measure': measure,
                'threshold': threshold,
                column: None if figure is None else round(float(figure), 4),
                'affected_side': self.side.side,
                'side_confidence': self.side.confidence,
                'side_rule': self.side.rule,
                'reason': reason,
            }
        )

    def add_volume(self, region, which, measure, threshold, value, what, removed=None):
        reason = _why_empty(what, removed or {}) if value == 0 else None
        self.add(region, which, measure, threshold, value, reason)

    def add_lesion(self, region, which, threshold, what):
        name = f'{region}_{which}' if which else region
        value = self.ml(self.masks[name])
        self.add_volume(region, which, 'volume', threshold, value, what, self.cleaning[name])

    def add_cleaning(self, region, which, threshold, what):
        removed = self.cleaning[f'{region}_{which}' if which else region]
        for kind in ('specks', 'rims'):
            self.add(region, which, f'removed {kind}', threshold, removed[kind],
                     None if removed[kind] else f'no {kind} {what}')  # fmt: skip

    def add_interval(self, intervals, name):
        """Add the limits of the volume, or why there are none, to the row that was added last."""
        row = self.rows[-1]
        if name in intervals:
            row |= dict(zip(('ci_low_ml', 'ci_high_ml'), intervals[name], strict=True))
        elif not row['reason']:
            row['reason'] = intervals.get('reason')

    def add_joined_core(self, threshold):
        by_tmax = self.cleaning['hypoperfusion']['unrestricted']
        joined = self.ml(self.masks['hypoperfusion']) - by_tmax
        self.add('hypoperfusion', None, JOINED_CORE, threshold, joined,
                 None if joined else 'no core has Tmax below the threshold and borders on it')  # fmt: skip

    def add_core(self, which, core_rcbf, hypodense, intervals):
        low = f'with {which} rCBF < {core_rcbf:.0%}'
        removed = self.cleaning[f'core_{which}']
        self.add_lesion('core', which, core_rcbf, low)
        self.add_interval(intervals, which)
        for part in ('unrestricted', 'within_hypoperfusion'):
            measure = f'volume {part.replace("_", " ")}'
            self.add_volume('core', which, measure, core_rcbf, removed[part], low, removed)
        self.add_cleaning('core', which, core_rcbf, low)
        if hypodense is None:
            self.add('core', which, 'hypodense', core_rcbf, None, 'no image of densities')
        else:
            value = self.ml(hypodense & self.masks[f'core_{which}'])
            self.add('core', which, 'hypodense', core_rcbf, value,
                     None if value else 'no hypodense tissue in the core')  # fmt: skip

    def add_difference(self, rcbf, core_rcbf, withheld):
        """Add what local normalization removes and adds, and the homologues it is divided by."""
        if 'local' not in rcbf:
            for measure in DIFFERENCE:
                self.add('core', 'local', measure, core_rcbf, None, withheld)
                self.add('core', 'local', f'homologues of {measure}', core_rcbf, None, withheld)
            self.add('core', 'local', NO_HOMOLOGUE, core_rcbf, None, withheld)
            return
        core_global, core_local = self.masks['core_global'], self.masks['core_local']
        assessable = self.within['local']
        parts = (core_global & ~core_local & assessable, core_local & ~core_global)
        for measure, part in zip(DIFFERENCE, parts, strict=True):
            volume = self.ml(part)
            self.add('core', 'local', measure, core_rcbf, volume,
                     None if volume else f'no core is {measure} normalization')  # fmt: skip
            # what the local map was divided by
            positive = part & (rcbf['local'] > 0)
            ratio = rcbf['global'][positive] / rcbf['local'][positive]
            self.add('core', 'local', f'homologues of {measure}', core_rcbf,
                     np.median(ratio) if ratio.size else None,
                     None if ratio.size else 'no voxels with flow')  # fmt: skip
        alone = self.ml(core_global & ~assessable)
        self.add('core', 'local', NO_HOMOLOGUE, core_rcbf, alone,
                 None if alone else 'all of the global core has homologues')  # fmt: skip

    def add_mismatch(self, which, slow):
        core, slow_ml = (self.ml(self.masks[name]) for name in (f'core_{which}', 'hypoperfusion'))
        overlap = self.ml(self.masks[f'mismatch_{which}'])
        outside = f'{slow} outside the core'
        self.add_volume('mismatch', which, 'volume', None, overlap, outside)
        volume, ratio, _ = mismatch_figures(core, slow_ml)
        self.add('mismatch', which, 'difference', None, volume)
        self.add('mismatch', which, 'ratio', None, None if np.isnan(ratio) else ratio,
                 'no core to divide by' if np.isnan(ratio) else None)  # fmt: skip

    def add_criteria(self, which, maps):
        """Add the criteria by their own thresholds; `maps` are None if the masks have these."""
        reason = None
        if maps is None:
            core, slow = self.masks[f'core_{which}'], self.masks['hypoperfusion']
        else:
            rcbf, tmax = maps
            cores = {
                name: self.segment(relative < DEFUSE3_RCBF, self.within[name], True).mask
                for name, relative in rcbf.items()
            }
            core = cores[which]
            slow = self.segment(tmax > DEFUSE3_TMAX, self.within['global'], False).mask
            slow = self.join_cores(slow, cores)
            reason = (
                f'by their own thresholds: rCBF < {DEFUSE3_RCBF:.0%} ({self.ml(core):.1f} mL), '
                f'Tmax > {DEFUSE3_TMAX:g} s, with core that borders on it ({self.ml(slow):.1f} mL)'
            )
        profile = mismatch_figures(self.ml(core), self.ml(slow))[2]
        self.add('defuse3', which, 'criteria', None, float(profile), reason)

    def add_absent(self, which, core_rcbf, reason):
        for measure in CORE:
            self.add('core', which, measure, core_rcbf, None, reason)
        for measure in ('volume', 'difference', 'ratio'):
            self.add('mismatch', which, measure, None, None, reason)
        self.add('defuse3', which, 'criteria', None, None, reason)

    def add_threshold(self, region, which, level, candidate, what, measure='volume'):
        lesion = self.segment(candidate, self.within[which or 'global'], region == 'rcbf')
        removed = cleaning_ml(lesion, self.masks['hypoperfusion'], self.size_mm)
        mask = lesion.mask
        if region == 'hypoperfusion':
            cores = {
                name: self.masks[f'core_{name}']
                for name in ('global', 'local')
                if f'core_{name}' in self.masks
            }
            mask = self.join_cores(mask, cores)
        self.add_volume(region, which, measure, level, self.ml(mask), what, removed)

    def add_uncalibrated(self, levels, tmax, offsets):
        greatest = max(offset for offset in offsets if offset is not None)
        for region, level in levels:
            if level < greatest:
                reason = f'below the offset of {greatest:.1f} s, where calibrated Tmax is cut at 0'
                self.add(region, None, 'volume uncalibrated', level, None, reason)
            else:
                slow = f'with Tmax > {level:g} s'
                self.add_threshold(region, None, level, tmax > level, slow, 'volume uncalibrated')

    def add_unassessable(self, withheld):
        missing, reason = None, withheld
        if 'local' in self.within:
            missing = self.ml(self.within['global'] & ~self.within['local'])
            reason = (
                None
                if missing
                else 'no tissue without a homologue in the hemisphere that is looked at'
            )
        self.add('unassessable', 'local', 'volume', None, missing, reason)

    def add_ratios(self, tmax, rcbv_global):
        severe, slow = (
            self.ml(self.segment(tmax > level, self.within['global'], False).mask)
            for level in INTENSITY_TMAX
        )
        self.add('hypoperfusion', None, 'intensity ratio', None, severe / slow if slow else None,
                 None if slow else 'no tissue with Tmax > 6 s to divide by')  # fmt: skip
        index, reason = None, 'no map of CBV'
        if rcbv_global is not None:
            within = rcbv_global[self.masks['hypoperfusion']]
            index = float(within.mean()) if within.size else None
            reason = None if within.size else 'no hypoperfusion to average over'
        self.add('hypoperfusion', 'global', 'CBV index', None, index, reason)


def _why_empty(what, removed):
    """Return the reason why a lesion is empty."""
    if removed.get('unrestricted'):
        return f'no tissue {what} lies within hypoperfusion'
    taken = [
        f'{removed[kind]:.1f} mL of {kind}' for kind in ('specks', 'rims') if removed.get(kind)
    ]
    after = f' and removal of {" and ".join(taken)}' if taken else ''
    return f'no tissue {what} after opening and closing{after}'
