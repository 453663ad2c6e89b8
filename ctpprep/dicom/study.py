# SPDX-License-Identifier: Apache-2.0
"""Which series of a study are perfusion, non-contrast CT or angiography, and which belong together.

Content decides: how many images each position has, and when they were acquired. Names are hints only.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ctpprep.dicom.geometry import group_positions, is_axial, normal_of
from ctpprep.dicom.scan import Image, ScannedSeries
from ctpprep.dicom.timing import RULES, unwrap_midnight
from ctpprep.io.headers import MIN_FRAMES

# phases, and single frames, begin at most so long after the end of the one before, s
PAUSE_S, FRAME_PAUSE_S = 60.0, 10.0
# fraction of positions that two parts of the same slab share
SAME_SLAB = 0.8
# a volume of fewer slices, mm, is not the CT of a head
LEAST_HEIGHT_MM = 60.0
NOT_A_SERIES = {
    'LOCALIZER', 'SCOUT', 'MIP', 'MPR', 'CBF', 'CBV', 'MTT', 'TTP', 'TMAX', 'PBV', 'SCREEN SAVE',
}  # fmt: skip
DERIVED = {'DERIVED', 'SECONDARY'}


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile('|'.join(patterns), re.IGNORECASE)


PROCESSED = _words(
    'regist', 'align', r'\bmoco', 'motion.?corr', r'\bmip\b', 'filter', 'denois', 'smooth', 'averag',
    r'\bavg\b',
)  # fmt: skip
ANGIOGRAPHY = _words('angio', r'\bcta\b', 'carotid', 'karotis', 'willis')
NATIVE = _words(
    r'\bncct\b', r'\bnect\b', 'nativ', 'non.?contrast', 'without', 'unenhanced', r'\bsans\b',
    r'\bw/?o\b', r'\bnc\b', r'\bplain\b',
)  # fmt: skip
OTHER_BODY = _words(
    'chest', 'thorax', 'lung', 'abdom', 'pelvi', 'spine', 'knee', r'\bheart', 'cardiac', 'liver'
)
# kernels that emphasize edges, by vendor: bone and lung
SHARP = _words(
    '^(bone|lung|edge|detail)', r'^[HJBU][a-z]?[5-9]\d', r'^Hr[5-9]\d', '^(YA|YB|L|D|E)$',
    r'^FC(3\d|8\d)',
)  # fmt: skip


@dataclass
class Group:
    """Series that are one scan.

    Attributes
    ----------
    series : list of ScannedSeries
    kind : str
        'ctp', 'ncct' or 'cta'; '' for anything else.
    reason : str
        Why it is not converted; '' if it is.
    notes : list of str
        What is unusual about its choice.
    """

    series: list[ScannedSeries]
    kind: str = ''
    reason: str = ''
    notes: list[str] = field(default_factory=list)

    @property
    def images(self) -> list[Image]:
        """Images of all its series."""
        return [image for series in self.series for image in series.images]

    @property
    def header(self) -> dict[str, Any]:
        """Tags of its first series."""
        return self.series[0].header

    @property
    def name(self) -> str:
        """Numbers and description, for messages."""
        if len(self.series) == 1:
            return self.series[0].name
        numbers = [series.header.get('SeriesNumber') for series in self.series]
        shown = ', '.join(str(n) for n in numbers[:3]) + (' ...' if len(numbers) > 3 else '')
        description = self.header.get('SeriesDescription')
        return f'{len(numbers)} series {shown}' + (f' ({description})' if description else '')

    @property
    def is_derived(self) -> bool:
        """Whether its images were computed from others."""
        return bool(DERIVED & set(self.series[0].image_type[:2]))

    @property
    def text(self) -> str:
        """Everything that names it."""
        names = ('SeriesDescription', 'ProtocolName', 'BodyPartExamined')
        return ' '.join(str(self.header.get(name, '')) for name in names)

    @property
    def span(self) -> tuple[float, float] | None:
        """First and last time, by the first rule that all images have and that is not constant."""
        images = self.images
        spans = []
        for rule in RULES:
            if all(rule in image.times for image in images):
                times = unwrap_midnight([image.times[rule] for image in images])
                spans.append((min(times), max(times)))
        return next((span for span in spans if span[1] > span[0]), spans[0] if spans else None)


def plan_study(scanned: Sequence[ScannedSeries]) -> list[Group]:
    """Decide what is converted.

    Parameters
    ----------
    scanned : sequence of ScannedSeries
        Of one study.

    Returns
    -------
    list of Group
        Each with its kind, or the reason why it is not converted.
    """
    groups: list[Group] = []
    usable: list[Group] = []
    for series in scanned:
        reason = series.problem or _exclude(series)
        (groups if reason else usable).append(Group([series], reason=reason))
    joined = _join_slabs(_join_parts(usable))
    perfusion = [group for group in joined if _images_per_position(group) > 1]
    volumes = [group for group in joined if _images_per_position(group) == 1]
    for group in perfusion:
        group.kind = 'ctp'
        if (count := _images_per_position(group)) < MIN_FRAMES:
            group.kind = ''
            group.reason = (
                f'{count} images per position, a perfusion series has at least {MIN_FRAMES}'
            )
        elif OTHER_BODY.search(group.text):
            group.kind, group.reason = '', 'another part of the body, by its description'
    _choose_reconstruction([group for group in perfusion if group.kind], 'ctp')
    for group in volumes:
        group.kind, group.reason = _classify_volume(group)
    for kind in ('ncct', 'cta'):
        _choose_reconstruction([group for group in volumes if group.kind == kind], kind)
    groups += joined
    return sorted(groups, key=lambda group: group.header.get('SeriesNumber') or 0)


def _exclude(series: ScannedSeries) -> str:
    """Explain why a series cannot be used, by its first image."""
    wrong = NOT_A_SERIES & {
        part for value in series.image_type for part in (value, *value.split())
    }
    if wrong:
        return f'ImageType contains {", ".join(sorted(wrong))}'
    images = series.images
    if not images:
        return 'no images'
    if not is_axial(images[0].orientation):
        return 'slices are not axial'
    for name, values in (
        ('orientations', {tuple(round(v, 3) for v in image.orientation) for image in images}),
        ('sizes', {image.shape for image in images}),
        ('pixel spacings', {image.spacing for image in images}),
    ):
        if len(values) > 1:
            return f'its images have {len(values)} different {name}'
    return ''


def _images_per_position(group: Group) -> int:
    """Return the number of images that most positions have."""
    counts = Counter(len(images) for images in group_positions(group.images))
    return max(counts, key=lambda n: (counts[n], n))


def _same_scan(group: Group) -> tuple[Any, ...]:
    """Return what parts of one scan have in common."""
    image, header = group.images[0], group.header
    return (
        header.get('FrameOfReferenceUID'),
        tuple(round(value, 2) for value in image.orientation),
        image.shape,
        tuple(round(value, 3) for value in image.spacing),
        header.get('SliceThickness'),
        str(header.get('ConvolutionKernel')),
        header.get('KVP'),
        group.is_derived,
        bool(PROCESSED.search(group.text)),
    )


def _heights(group: Group) -> set[int]:
    normal = normal_of(group.images[0].orientation)
    return {round(float(normal @ image.position) * 2) for image in group.images}


def _join_parts(groups: list[Group]) -> list[Group]:
    """Join series of the same slab that follow one another: a series per frame, or per phase."""
    chains: dict[tuple[Any, ...], list[list[Group]]] = {}
    ordered = sorted(groups, key=lambda group: (group.span or (0.0, 0.0), _number(group)))
    for group in ordered:
        heights = _heights(group)
        for chain in chains.setdefault(_same_scan(group), []):
            shared = len(heights & _heights(chain[-1])) / len(heights | _heights(chain[-1]))
            both = min(_images_per_position(part) for part in (chain[-1], group)) > 1
            pause = PAUSE_S if both else FRAME_PAUSE_S
            if shared >= SAME_SLAB and _follows(chain[-1].span, group.span, pause):
                chain.append(group)
                break
        else:
            chains[_same_scan(group)].append([group])
    joined = []
    for chain in (chain for chains_of_scan in chains.values() for chain in chains_of_scan):
        n_images = sum(_images_per_position(group) for group in chain)
        if len(chain) > 1 and n_images >= MIN_FRAMES:
            joined.append(Group([series for group in chain for series in group.series]))
        else:
            joined += chain
    return joined


def _follows(
    first: tuple[float, float] | None, second: tuple[float, float] | None, pause: float
) -> bool:
    """Return whether a part begins soon after the end of another; parts without times may."""
    if first is None or second is None:
        return first is second
    return first[1] < second[0] <= first[1] + pause


def _number(group: Group) -> float:
    return float(group.header.get('SeriesNumber') or 0)


def _join_slabs(groups: list[Group]) -> list[Group]:
    """Join perfusion series of different slabs that were acquired at the same time."""
    joined: list[Group] = []
    for group in groups:
        partner = next((other for other in joined if _is_other_slab(other, group)), None)
        if partner is None:
            joined.append(group)
        else:
            partner.series += group.series
    return joined


def _is_other_slab(first: Group, second: Group) -> bool:
    spans = first.span, second.span
    if _same_scan(first) != _same_scan(second) or None in spans:
        return False
    if min(_images_per_position(first), _images_per_position(second)) < 2:
        return False
    (begin, end), (other_begin, other_end) = spans  # type: ignore[misc]
    shared = min(end, other_end) - max(begin, other_begin)
    return shared > 0.5 * min(end - begin, other_end - other_begin) and not (
        _heights(first) & _heights(second)
    )


def _classify_volume(group: Group) -> tuple[str, str]:
    """Return the kind of a volume, or why it is none."""
    positions = group_positions(group.images)
    normal = normal_of(group.images[0].orientation)
    height = float(normal @ positions[-1][0].position - normal @ positions[0][0].position)
    if height < LEAST_HEIGHT_MM:
        return '', f'a volume of {height:.0f} mm, need at least {LEAST_HEIGHT_MM:g} mm for a head'
    if OTHER_BODY.search(group.text):
        return '', 'another part of the body, by its description'
    has_contrast = any(
        group.header.get(f'ContrastBolus{word}') for word in ('Agent', 'Ingredient')
    )
    if ANGIOGRAPHY.search(group.text):
        return 'cta', ''
    if NATIVE.search(group.text) or not has_contrast:
        return 'ncct', ''
    return '', 'a volume with contrast that is not named as angiography'


def _choose_reconstruction(groups: list[Group], kind: str) -> None:
    """Keep the least processed of several reconstructions of one scan, and explain it for the others."""

    def rank(group: Group) -> tuple[Any, ...]:
        thickness = float(group.header.get('SliceThickness') or 0)
        kernel = group.header.get('ConvolutionKernel')
        kernel = kernel[0] if isinstance(kernel, list) else kernel
        return (
            group.is_derived,
            bool(PROCESSED.search(group.text)),
            bool(SHARP.search(str(kernel or ''))),
            -len(group_positions(group.images))
            * (thickness or 1.0)
            // 20,  # coverage, 20 mm steps
            thickness if kind != 'ncct' else -min(thickness, 5.0),
            _number(group),
        )

    kept: list[Group] = []
    for group in sorted(groups, key=rank):
        best = next((other for other in kept if _same_acquisition(other, group, kind)), None)
        if best is None:
            kept.append(group)
            if group.is_derived:
                group.notes.append('images are derived, an original series does not exist')
        else:
            why = _difference(rank(best), rank(group))
            group.kind, group.reason = '', f'{why} of {best.name}'


def _same_acquisition(first: Group, second: Group, kind: str) -> bool:
    """Return whether a group is another reconstruction; derived images may have other times."""
    if kind != 'ctp':
        return True
    if (second.is_derived and not first.is_derived) or PROCESSED.search(second.text):
        return True
    spans = first.span, second.span
    if None in spans:
        return True
    (begin, end), (other_begin, other_end) = spans  # type: ignore[misc]
    return begin <= other_end and other_begin <= end


def _difference(best: tuple[Any, ...], other: tuple[Any, ...]) -> str:
    """Name the first difference of two ranks."""
    names = (
        'a derived series', 'a processed version', 'a sharper reconstruction',
        'a reconstruction with fewer slices', 'a reconstruction of another slice thickness',
        'another reconstruction',
    )  # fmt: skip
    return next((name for name, a, b in zip(names, best, other, strict=True) if a != b), names[-1])
