# SPDX-License-Identifier: Apache-2.0
"""What a structured report contains of a series: volumes, affected side, and the verdict on its quality."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ctpprep.exceptions import CtpprepError
from ctpprep.io.files import read_object
from ctpprep.io.records import find_change, status_path
from ctpprep.io.tables import read_table

GRADES = ('pass', 'warn', 'fail')
# rows of the table of volumes, by the ending of the mask: region and normalization
ROWS = {
    'label-core_desc-global_mask': ('core', 'global'),
    'label-core_desc-local_mask': ('core', 'local'),
    'label-hypoperfusion_mask': ('hypoperfusion', ''),
    'label-mismatch_desc-global_mask': ('mismatch', 'global'),
    'label-mismatch_desc-local_mask': ('mismatch', 'local'),
}


@dataclass(frozen=True)
class Region:
    """The figures of a mask.

    Attributes
    ----------
    volume_ml : float or None
    interval_ml : (float, float) or None
        95 % interval of the volume.
    ratio, difference_ml : float or None
        Of hypoperfusion and core; of a mismatch only.
    reason : str
        Why a volume is 0, or missing.
    """

    volume_ml: float | None
    interval_ml: tuple[float, float] | None = None
    ratio: float | None = None
    difference_ml: float | None = None
    reason: str = ''


@dataclass(frozen=True)
class Findings:
    """What is reported of a series.

    Attributes
    ----------
    verdict : str
        'usable', 'look first' or 'do not use', as on the page of ctpprep; '' if no check has a grade.
    failed : tuple of str
        Names of failed checks.
    reasons : tuple of str
        A sentence for each check that did not pass.
    side : str
        Affected side: 'left' or 'right'; '' if unknown.
    hemisphere : str
        Hemisphere that lesions were looked for in: 'left', 'right' or 'both'.
    regions : dict of str to Region
        By the ending of their mask.
    """

    verdict: str = ''
    failed: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    side: str = ''
    hemisphere: str = ''
    regions: dict[str, Region] = field(default_factory=dict)

    @property
    def verdict_only(self) -> 'Findings':
        """The same without results."""
        return replace(self, side='', hemisphere='', regions={})


def read_findings(folder: Path, prefix: str) -> Findings:
    """Read the findings of a series.

    Parameters
    ----------
    folder : Path
        Of the results.
    prefix : str
        Start of the file names.

    Returns
    -------
    Findings
    """
    from ctpprep.perfusion.quality import conclude
    from ctpprep.perfusion.symmetry import WITHHELD

    checks = next(iter(_read_table(folder / f'{prefix}_desc-qualitycontrol_ctp.tsv')), {})
    grades = {
        column.removesuffix('_status'): grade
        for column, grade in checks.items()
        if column.endswith('_status') and grade in GRADES
    }
    doubted = [name for grade in ('fail', 'warn') for name in grades if grades[name] == grade]
    reasons = [checks.get(f'{name}_sentence') or name.replace('_', ' ') for name in doubted]
    if (caution := checks.get('caution', '')) not in ('', *reasons):
        reasons.append(caution)
    volumes = _read_table(folder / f'{prefix}_seg-perfusion_morph.tsv')
    regions = {
        ending: region
        for ending, row in ROWS.items()
        if (region := _read_region(volumes, *row)) is not None
    }
    local = regions.get('label-core_desc-local_mask')
    withheld = local is not None and local.reason.startswith(WITHHELD)
    first = volumes[0] if volumes else {}
    return Findings(
        verdict=conclude(grades, withheld).word if grades else '',
        failed=tuple(name for name in doubted if grades[name] == 'fail'),
        reasons=tuple(reasons),
        side=first.get('affected_side', ''),
        hemisphere=first.get('hemisphere', ''),
        regions=regions,
    )


def read_entry(out_dir: Path, prefix: str) -> dict[str, Any]:
    """Read what the status file of ``ctpprep`` states of a series; {} if it is not in one.

    Parameters
    ----------
    out_dir : Path
        Output folder of ctpprep.
    prefix : str

    Raises
    ------
    CtpprepError
        When the file cannot be read.
    """
    path = status_path(out_dir, prefix.partition('_')[0].removeprefix('sub-'))
    entries = read_object(path, CtpprepError).get('Series', []) if path.exists() else []
    return next((entry for entry in entries if entry.get('Series') == prefix), {})


def find_loss(entry: dict[str, Any], out_dir: Path) -> str:
    """Describe why the outputs of a series are not those of one complete run; '' if they are.

    Parameters
    ----------
    entry : dict
        From `read_entry`. While the next run is running, the record of the run before is valid
        until its files change.
    out_dir : Path
    """
    if record := entry.get('Files'):
        return find_change(record, out_dir)
    if entry.get('State') == 'running':
        return 'its latest run has not ended, or was killed'
    return ''


def _read_table(path: Path) -> list[dict[str, str]]:
    return read_table(path) if path.exists() else []


def _read_region(volumes: list[dict[str, str]], region: str, normalization: str) -> Region | None:
    """Collect the rows of a region; None if there is no volume of it."""
    rows = {
        row['measure']: row
        for row in volumes
        if (row.get('region'), row.get('normalization')) == (region, normalization)
    }
    if 'volume' not in rows:
        return None
    row = rows['volume']
    low, high = _number(row.get('ci_low_ml')), _number(row.get('ci_high_ml'))
    return Region(
        volume_ml=_number(row.get('volume_ml')),
        interval_ml=None if low is None or high is None else (low, high),
        ratio=_number(rows.get('ratio', {}).get('value')),
        difference_ml=_number(rows.get('difference', {}).get('volume_ml')),
        reason=row.get('reason', ''),
    )


def _number(value: Any) -> float | None:
    """Convert a cell; None if it is empty, or not a number."""
    if not value:
        return None
    number = float(value)
    return number if math.isfinite(number) else None
