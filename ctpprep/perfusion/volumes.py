# SPDX-License-Identifier: Apache-2.0
"""Volumes in mL and the figures that users of commercial software expect, as one tidy table.

Sources: Rau et al. 2024, doi:10.3174/ajnr.A8111 (volumes); Olivot et al., Stroke 2014;45:1018,
doi:10.1161/STROKEAHA.113.003857 (hypoperfusion intensity ratio); Albers et al., NEJM 2018;378:708,
doi:10.1056/NEJMoa1713973 (DEFUSE 3: core < 70 mL, mismatch >= 15 mL, ratio >= 1.8).
"""

import numpy as np

COLUMNS = (
    'region', 'hemisphere', 'normalization', 'measure', 'threshold', 'volume_ml', 'ci_low_ml',
    'ci_high_ml', 'value', 'affected_side', 'side_confidence', 'reason',
)  # fmt: skip
CORE = (
    'volume', 'volume unrestricted', 'volume within hypoperfusion', 'removed specks', 'removed rims',
    'hypodense',
)  # fmt: skip
IN_ML = (*CORE, 'volume uncalibrated', 'difference')
# of the hypoperfusion intensity ratio: above and below the line, s
INTENSITY_TMAX = (10.0, 6.0)
DEFUSE3 = {'core_ml': 70.0, 'mismatch_ml': 15.0, 'ratio': 1.8}


def volume_ml(mask, voxel_size_mm):
    """Measure the volume of a mask.

    Parameters
    ----------
    mask : array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    float
        mL.

    Examples
    --------
    >>> volume_ml(np.ones((10, 10, 2), bool), (2, 2, 5))
    4.0
    """
    return float(np.count_nonzero(mask) * np.prod(np.asarray(voxel_size_mm, dtype=float)) / 1000)


def cleaning_ml(lesion, hypoperfusion, voxel_size_mm):
    """Measure what was removed from a lesion, and where it lies.

    Parameters
    ----------
    lesion : Lesion
    hypoperfusion : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    dict
        ``specks``, ``rims``, ``unrestricted`` and ``within_hypoperfusion``, mL.
    """
    parts = {
        'specks': lesion.specks,
        'rims': lesion.rims,
        'unrestricted': lesion.unrestricted,
        'within_hypoperfusion': lesion.unrestricted & hypoperfusion,
    }
    return {name: volume_ml(part, voxel_size_mm) for name, part in parts.items()}


def mismatch_figures(core_ml, hypoperfusion_ml):
    """Compute mismatch as trials do: by subtraction of volumes.

    Parameters
    ----------
    core_ml, hypoperfusion_ml : float
        mL.

    Returns
    -------
    volume : float
        mL; may be negative.
    ratio : float
        Hypoperfusion to core; NaN without core.
    defuse3 : bool
        Whether the perfusion criteria of DEFUSE 3 hold.

    Examples
    --------
    >>> mismatch_figures(20.0, 80.0)
    (60.0, 4.0, True)
    >>> mismatch_figures(0.0, 80.0)
    (80.0, nan, True)
    """
    volume = hypoperfusion_ml - core_ml
    ratio = hypoperfusion_ml / core_ml if core_ml > 0 else float('nan')
    # without core any mismatch has an infinite ratio
    enough = hypoperfusion_ml > 0 if core_ml == 0 else ratio >= DEFUSE3['ratio']
    profile = core_ml < DEFUSE3['core_ml'] and volume >= DEFUSE3['mismatch_ml'] and enough
    return volume, ratio, bool(profile)


def uncalibrated_tmax(tmax, offset_by_slice):
    """Give calibrated Tmax back the offset that was subtracted from it.

    Calibrated Tmax is cut at 0, so a voxel of 0 may have had any value up to the offset: only
    thresholds from the offset on see the map as it was before calibration.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        Calibrated, s.
    offset_by_slice : (Z,) sequence of float or None
        What was subtracted in each slice, s; None in slices without tissue.

    Returns
    -------
    (X, Y, Z) array
        s.

    Examples
    --------
    >>> uncalibrated_tmax(np.full((1, 1, 2), 5.0), [2.0, 2.5])
    array([[[7. , 7.5]]])
    """
    return tmax + np.array([offset or 0.0 for offset in offset_by_slice])


def volume_table(
    masks, cleaning, tmax, rcbf, rcbv_global, within, voxel_size_mm, side, hemisphere_name,
    *, core_rcbf, hypoperfusion_tmax, tmax_thresholds, rcbf_thresholds, segment, tmax_offsets=None,
    withheld='', hypodense=None, intervals=None,
):  # fmt: skip
    """Tabulate every volume of a series.

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
        ``global`` and ``local``, fractions; a local map that was withheld is absent, with its masks.
    rcbv_global : (X, Y, Z) array or None
        Fraction, for the CBV index.
    within : dict of (X, Y, Z) arrays of bool
        ``global`` and ``local``: tissue that thresholds look at.
    voxel_size_mm : (3,) sequence of float
    side : AffectedSide
    hemisphere_name : {'left', 'right', 'both'}
        Hemisphere that the masks are restricted to.
    core_rcbf, hypoperfusion_tmax : float
        Thresholds of the masks.
    tmax_thresholds, rcbf_thresholds : sequence of float
        Thresholds whose volumes are tabulated besides (s, fractions).
    segment : callable
        ``segment(candidate, within, of_flow)`` makes a `Lesion` of what passes a threshold of flow or,
        filled, of Tmax.
    tmax_offsets : (Z,) sequence of float or None, optional
        What calibration subtracted from Tmax in each slice, s; absent for uncalibrated Tmax.
    withheld : str, optional
        Why there is no local map.
    hypodense : (X, Y, Z) array of bool, optional
        Hypodense tissue of either core; absent without an image of densities.
    intervals : dict of (2,) sequences of float, optional
        Limits of the core volume, mL, by normalization; ``reason`` tells why there are none.

    Returns
    -------
    list of dict
        Rows with the keys of `COLUMNS`; what does not apply is None. Empty regions are rows of 0
        with the reason. Without a local map its rows are there, without figures and with the reason.
    """
    rows = []

    def add(region, normalization, measure, threshold, figure, reason=None):
        # figures without a unit stand in a column of their own
        column = 'volume_ml' if measure in IN_ML else 'value'
        rows.append(
            dict.fromkeys(COLUMNS)
            | {
                'region': region,
                'hemisphere': hemisphere_name,
                'normalization': normalization,
                'measure': measure,
                'threshold': threshold,
                column: None if figure is None else round(float(figure), 4),
                'affected_side': side.side,
                'side_confidence': side.confidence,
                'reason': reason,
            }
        )

    def empty(value, what, removed=None):
        return _why_empty(what, removed or {}) if value == 0 else None

    def add_thresholded(region, which, measure, level, candidate, what):
        flow = region == 'rcbf'
        lesion = segment(candidate, within[which or 'global'], flow)
        value = volume_ml(lesion.mask, voxel_size_mm)
        removed = cleaning_ml(lesion, masks['hypoperfusion'], voxel_size_mm)
        add(region, which, measure, level, value, empty(value, what, removed))

    def add_cleaning(region, which, level, removed, what):
        for kind in ('specks', 'rims'):
            add(region, which, f'removed {kind}', level, removed[kind],
                None if removed[kind] else f'no {kind} {what}')  # fmt: skip

    size = {name: volume_ml(mask, voxel_size_mm) for name, mask in masks.items()}
    slow = f'with Tmax > {hypoperfusion_tmax:g} s'
    add('hypoperfusion', None, 'volume', hypoperfusion_tmax, size['hypoperfusion'],
        empty(size['hypoperfusion'], slow, cleaning['hypoperfusion']))  # fmt: skip
    add_cleaning('hypoperfusion', None, hypoperfusion_tmax, cleaning['hypoperfusion'], slow)
    for which in ('global', 'local'):
        if which not in rcbf:
            for measure in CORE:
                add('core', which, measure, core_rcbf, None, withheld)
            for region, measure in (
                ('mismatch', 'volume'), ('mismatch', 'difference'), ('mismatch', 'ratio'),
                ('defuse3', 'criteria'),
            ):  # fmt: skip
                add(region, which, measure, None, None, withheld)
            continue
        core = size[f'core_{which}']
        low = f'with {which} rCBF < {core_rcbf:.0%}'
        removed = cleaning[f'core_{which}']
        add('core', which, 'volume', core_rcbf, core, empty(core, low, removed))
        if limits := (intervals or {}).get(which):
            rows[-1] |= dict(zip(('ci_low_ml', 'ci_high_ml'), limits, strict=True))
        elif not rows[-1]['reason']:
            rows[-1]['reason'] = (intervals or {}).get('reason')
        add('core', which, 'volume unrestricted', core_rcbf, removed['unrestricted'],
            empty(removed['unrestricted'], low, removed))  # fmt: skip
        add('core', which, 'volume within hypoperfusion', core_rcbf,
            removed['within_hypoperfusion'],
            empty(removed['within_hypoperfusion'], low, removed))  # fmt: skip
        add_cleaning('core', which, core_rcbf, removed, low)
        if hypodense is None:
            add('core', which, 'hypodense', core_rcbf, None, 'no image of densities')
        else:
            value = volume_ml(hypodense & masks[f'core_{which}'], voxel_size_mm)
            add('core', which, 'hypodense', core_rcbf, value,
                None if value else 'no hypodense tissue in the core')  # fmt: skip
        overlap = size[f'mismatch_{which}']
        add('mismatch', which, 'volume', None, overlap, empty(overlap, f'{slow} outside the core'))
        volume, ratio, profile = mismatch_figures(core, size['hypoperfusion'])
        add('mismatch', which, 'difference', None, volume)
        add('mismatch', which, 'ratio', None, None if np.isnan(ratio) else ratio,
            'no core to divide by' if np.isnan(ratio) else None)  # fmt: skip
        add('defuse3', which, 'criteria', None, float(profile))
    for level in tmax_thresholds:
        add_thresholded('tmax', None, 'volume', level, tmax > level, f'with Tmax > {level:g} s')
    if tmax_offsets is not None:
        uncalibrated = uncalibrated_tmax(tmax, tmax_offsets)
        greatest = max(offset for offset in tmax_offsets if offset is not None)
        for region, level in (
            ('hypoperfusion', hypoperfusion_tmax), *(('tmax', each) for each in tmax_thresholds)
        ):  # fmt: skip
            if level < greatest:
                add(region, None, 'volume uncalibrated', level, None,
                    f'below the offset of {greatest:.1f} s, where calibrated Tmax is cut at 0')  # fmt: skip
                continue
            add_thresholded(
                region, None, 'volume uncalibrated', level, uncalibrated > level,
                f'with Tmax > {level:g} s',
            )  # fmt: skip
    for which in ('global', 'local'):
        for level in rcbf_thresholds:
            if which not in rcbf:
                add('rcbf', which, 'volume', level, None, withheld)
                continue
            add_thresholded(
                'rcbf', which, 'volume', level, rcbf[which] < level, f'with rCBF < {level:.0%}'
            )
    if 'local' in rcbf:
        missing = volume_ml(within['global'] & ~within['local'], voxel_size_mm)
        add('unassessable', 'local', 'volume', None, missing,
            None if missing else 'no tissue without a homologue')  # fmt: skip
    else:
        add('unassessable', 'local', 'volume', None, None, withheld)
    severe, all_slow = (
        volume_ml(segment(tmax > level, within['global'], False).mask, voxel_size_mm)
        for level in INTENSITY_TMAX
    )
    add('hypoperfusion', None, 'intensity ratio', None, severe / all_slow if all_slow else None,
        None if all_slow else 'no tissue with Tmax > 6 s to divide by')  # fmt: skip
    index, reason = None, 'no map of CBV' if rcbv_global is None else None
    if reason is None and masks['hypoperfusion'].any():
        index = float(rcbv_global[masks['hypoperfusion']].mean())
    elif reason is None:
        reason = 'no hypoperfusion to average over'
    add('hypoperfusion', 'global', 'CBV index', None, index, reason)
    return rows


def _why_empty(what, removed):
    """Tell why nothing is left of a lesion."""
    if removed.get('unrestricted'):
        return f'no tissue {what} lies within hypoperfusion'
    taken = [
        f'{removed[kind]:.1f} mL of {kind}' for kind in ('specks', 'rims') if removed.get(kind)
    ]
    after = f' and removal of {" and ".join(taken)}' if taken else ''
    return f'no tissue {what} after opening and closing{after}'
