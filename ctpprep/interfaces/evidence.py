# SPDX-License-Identifier: Apache-2.0
"""Save what a failed series shows into the working folder of its node, and read it again."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ctpprep.exceptions import PerfusionError
from ctpprep.io.files import write_atomically
from ctpprep.perfusion.evidence import Evidence, gather_evidence

FILE_NAME = 'evidence.npz'
OUTLINE = 'outline '  # before the name of each outlined mask


@contextlib.contextmanager
def keep_evidence(runtime: Any, *series: Any, **options: Any) -> Iterator[None]:
    """Save the evidence if a stage finds no valid result in a series; its error is raised again.

    Parameters
    ----------
    runtime : Bunch
        Of the interface; the file is written to its ``cwd``.
    *series, **options
        As for `gather_evidence`.
    """
    try:
        yield
    except PerfusionError:
        evidence = gather_evidence(*series, **options)
        if evidence is not None:
            with contextlib.suppress(OSError):  # the disk may be full
                save_evidence(evidence, Path(runtime.cwd))
        raise


def save_evidence(evidence: Evidence, folder: Path) -> None:
    """Write the evidence into a folder, with images in whole HU."""
    arrays = dict(vars(evidence))
    outlines = arrays.pop('outlines')
    arrays |= {f'{OUTLINE}{name}': mask for name, mask in outlines.items()}
    arrays['image'] = np.clip(evidence.image, -32768, 32767).astype(np.int16)
    write_atomically(lambda partial: np.savez_compressed(partial, **arrays), folder / FILE_NAME)


def read_evidence(folder: Path) -> Evidence:
    """Read the evidence from the working folder of a node.

    Raises
    ------
    Exception
        Of any class, if the file is missing or damaged.
    """
    with np.load(folder / FILE_NAME, allow_pickle=False) as file:
        arrays: dict[str, Any] = dict(file)
    outlines = {
        name.removeprefix(OUTLINE): arrays.pop(name) for name in [*arrays] if OUTLINE in name
    }
    region = str(arrays.pop('region'))
    return Evidence(outlines=outlines, region=region, **arrays)
