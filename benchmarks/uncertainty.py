# SPDX-License-Identifier: Apache-2.0
"""Does the interval of a core volume hold it: scan the same heads again and again.

    python benchmarks/uncertainty.py                   # 4 heads, 40 scans each
    python benchmarks/uncertainty.py --scans 5 --out DIR

The maps of a head without noise or motion are computed from arrays. Its corrected series is then
given noise, again and again, and each time everything from denoising on is done anew by the same
functions. Without noise is what the mean of the denoised curves of all scans gives. Prints how often
the 95 % interval holds the volume without noise, how wide it is, and whether the probability of core
is what is found.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import nibabel as nb
import numpy as np
from accuracy import SCAN, default_data_dir, make_heads

from ctpprep import MethodSettings, compute_maps
from ctpprep.inputs.timing import read_series_timing
from ctpprep.perfusion import estimate_maps, normalize, segment
from ctpprep.perfusion.lesions import RelativeMaps, estimate_uncertainty
from ctpprep.perfusion.volumes import volume_ml
from ctpprep.phantom import PhantomSettings, scanner_noise

NOISE_HU = 4.0
# These seeds are for measuring; the interval was calibrated on 51 to 54.
HEADS = {
    '401': {'lesion': 'large', 'lesion_side': 'right', 'microangiopathy': True},
    '402': {'lesion': 'large', 'lesion_side': 'left', 'residue': 'plateau'},
    '403': {'lesion': 'small', 'lesion_side': 'right', 'residue': 'linear'},
    '404': {'lesion': 'small', 'lesion_side': 'left', 'microangiopathy': True},
}
SETTINGS = MethodSettings.of(noise_draws=100)
WHICH = ('global', 'local')
BINS = np.linspace(0, 1, 6)


class Head:
    """One head without noise, from denoising on."""

    def __init__(self, path: Path) -> None:
        image = nb.as_closest_canonical(nb.load(path))
        sidecar = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
        _, self.times, _ = read_series_timing(path, sidecar, None)
        self.size = nb.affines.voxel_sizes(image.affine)
        self.still = compute_maps(
            np.asarray(image.dataobj), self.times, self.size, SETTINGS, image.affine
        )

    def scan(self, seed: int | None, lambda_rel: float = 0.0, curves=None) -> dict:
        """Give the series noise and do everything from denoising on; return what is scored.

        With `curves` these are deconvolved, and there is no interval.
        """
        still, settings = self.still, SETTINGS.change(lambda_rel=lambda_rel)
        ctp = still.corrected.ctp if seed is None else self._add_noise(seed)
        masks, vessels = still.masks, still.vessels
        denoise = None if curves is None else (lambda *_: curves)
        maps = estimate_maps(
            ctp, self.times, self.size, vessels.times, vessels.aif, masks.tissue, masks.pure,
            masks.n_baseline, settings, denoise=denoise,
        )  # fmt: skip
        relative = normalize(
            maps.cbf, maps.cbv, maps.tmax, masks.tissue, still.affine, still.mirror, settings
        )
        found = segment(
            maps.tmax, relative, masks.tissue, still.mirror.hemispheres, self.size, settings
        )
        rcbf = {'global': relative.rcbf_global, 'local': relative.rcbf_local}
        scored = {
            'lambda_rel': maps.measured['lambda_rel'],
            'curves': _rebuild(maps.curves),
            'rcbf': rcbf,
            'volumes': {
                which: volume_ml(found.masks[f'core_{which}'], self.size) for which in WHICH
            },
        }
        if curves is None:
            relative_maps = RelativeMaps(
                maps.tmax, rcbf, masks.tissue, still.mirror.hemispheres, self.size,
                relative.measured, relative.unassessable,
            )  # fmt: skip
            uncertainty = estimate_uncertainty(
                relative_maps, found.masks['hypoperfusion'], settings, maps.cbf_noise
            )
            scored |= {
                'intervals': uncertainty.intervals, 'probability': uncertainty.probability
            }  # fmt: skip
        return scored

    def _add_noise(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        noisy = np.array(self.still.corrected.ctp, dtype=np.float32)
        for frame in range(noisy.shape[3]):
            clean = np.nan_to_num(noisy[..., frame], nan=-1024)
            noisy[..., frame] += scanner_noise(clean, NOISE_HU, rng)
        # the scanner stores whole HU
        return np.round(noisy)


def _rebuild(curves) -> np.ndarray:
    """Return the denoised curves of a head whose slices share their sample times."""
    return curves.centres[0] + curves.scores @ curves.components[0].T


def score_head(path: Path, scans: int) -> dict:
    """Scan a head repeatedly.

    Returns
    -------
    dict
        By normalization: ``truth`` (mL without noise), ``volumes``, ``low``, ``high`` (mL of each
        scan), ``expected`` and ``found`` (voxels in each bin of probability, and how many of them are
        below the threshold without noise).
    """
    head = Head(path)
    # one lambda for all: that of the first scan
    lambda_rel = head.scan(0)['lambda_rel']
    seen, total = [], 0.0
    for seed in range(1, scans + 1):
        scored = head.scan(seed, lambda_rel)
        total = total + scored.pop('curves').astype(np.float64)
        seen.append({name: scored[name] for name in ('volumes', 'intervals', 'probability')})
    clean = head.scan(1, lambda_rel, (total / scans).astype(np.float32))
    threshold = SETTINGS.lesion.core_rcbf
    scores = {}
    for which in WHICH:
        below = clean['rcbf'][which] < threshold
        counts = [[], []]
        for scan in seen:
            probability = scan['probability'][which]
            asked = probability > 0
            counts[0].append(np.histogram(probability[asked], BINS)[0])
            counts[1].append(np.histogram(probability[asked & below], BINS)[0])
        scores[which] = {
            'truth': clean['volumes'][which],
            'volumes': [scan['volumes'][which] for scan in seen],
            'low': [scan['intervals'][which][0] for scan in seen],
            'high': [scan['intervals'][which][1] for scan in seen],
            'expected': np.sum(counts[0], axis=0).tolist(),
            'found': np.sum(counts[1], axis=0).tolist(),
        }
    return scores


def coverage(scored: dict) -> tuple[float, float]:
    """Tell how often the interval holds the volume without noise, and its median relative width.

    Examples
    --------
    >>> coverage({'truth': 10.0, 'low': [8.0, 11.0], 'high': [12.0, 13.0]})
    (0.5, 0.3)
    """
    low, high = np.array(scored['low']), np.array(scored['high'])
    held = (low <= scored['truth']) & (scored['truth'] <= high)
    return float(held.mean()), float(np.median((high - low) / scored['truth']))


def report(scores: dict[str, dict], scans: int) -> None:
    """Print the tables."""
    print(f'\n{len(scores)} heads, {scans} scans each, noise {NOISE_HU:g} HU\n')
    print('| head | core | without noise, mL | scans, mL: mean (SD) | interval holds it | width |')
    print('|---|---|---|---|---|---|')
    held, widths = [], []
    for label, scored in scores.items():
        for which in WHICH:
            share, width = coverage(scored[which])
            held.append(share)
            widths.append(width)
            volumes = scored[which]['volumes']
            print(
                f'| {label} | {which} | {scored[which]["truth"]:.1f} | {np.mean(volumes):.1f} '
                f'({np.std(volumes, ddof=1):.1f}) | {share:.0%} | {width:.0%} |'
            )
    print(f'\nall: held {np.mean(held):.1%} (target >= 85 %), width {np.median(widths):.0%} '
          '(median; target <= 60 %)')  # fmt: skip
    bins = ' | '.join(f'{low:.1f}-{high:.1f}' for low, high in pairwise(BINS))
    print(f'\n| probability | {bins} |')
    print('|---' * len(BINS) + '|')
    for which in WHICH:
        parts = [
            np.sum([scored[which][name] for scored in scores.values()], axis=0)
            for name in ('found', 'expected')
        ]
        cells = ' | '.join(f'{a / max(b, 1):.2f}' for a, b in zip(*parts, strict=True))
        print(f'| below the threshold without noise, {which} | {cells} |')


def main(argv) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--scans', type=int, default=40, metavar='N', help='scans of each head (default: 40)')
    add('--heads', nargs='+', choices=list(HEADS), default=list(HEADS), metavar='LABEL')
    add('--out', type=Path, metavar='DIR', help='where scores.json is written')
    add('--data', type=Path, metavar='DIR', help='folder of the heads (default: in the cache)')
    add('--jobs', type=int, default=2, metavar='N', help='processes (default: 2)')
    args = parser.parse_args(argv)
    still = SCAN | {'motion_mm': 0.0}
    heads = {
        label: PhantomSettings(seed=int(label), noise_hu=0.0, **still, **HEADS[label])
        for label in args.heads
    }
    data = (
        args.data or default_data_dir().with_name(f'still-{default_data_dir().name}')
    ).absolute()
    make_heads(data, heads, args.jobs)
    # anything multithreaded must not depend on the machine
    os.environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] = '1'
    paths = [data / f'sub-{label}' / 'ct' / f'sub-{label}_ctp.nii.gz' for label in heads]
    with ProcessPoolExecutor(args.jobs) as pool:
        scored = pool.map(score_head, paths, [args.scans] * len(heads))
        scores = dict(zip(heads, scored, strict=True))
    report(scores, args.scans)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / 'scores.json').write_text(json.dumps(scores, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
