"""Seconds to prepare one case, from its NIfTI files and from the cache, against the textbook way to do the same.

    python benchmarks/preprocess.py [--case FOLDER] [--runs 5]

Without --case a phantom of 240 x 240 x 155 voxels is made up. The textbook way reads each file with nibabel as float64,
and masks, crops and z-scores with plain numpy.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.data.phantom import write_phantoms
from brainunet.data.preprocess import prepare
from brainunet.labels import DEFAULT_MODALITIES
from brainunet.records import Case


def textbook(case: Case) -> np.ndarray:
    volumes = [nib.as_closest_canonical(nib.load(case.images[m])).get_fdata() for m in DEFAULT_MODALITIES]
    if case.label is not None:
        nib.as_closest_canonical(nib.load(case.label)).get_fdata()
    brain = np.any([volume != 0 for volume in volumes], axis=0)
    where = np.argwhere(brain)
    crop = tuple(slice(low, high + 1) for low, high in zip(where.min(0), where.max(0), strict=True))
    channels = []
    for volume in volumes:
        values = volume[brain]
        clipped = np.clip(volume, *np.percentile(values, (0.5, 99.5)))
        inside = clipped[brain]
        channels.append((np.where(brain, (clipped - inside.mean()) / inside.std(), 0.0))[crop])
    return np.stack(channels)


def best_of(runs: int, work: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=Path, help="folder of one case")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.case or Path(scratch) / "case"
        if asked.case is None:
            write_phantoms(folder, cases=1, style="ssa", seed=0, shape=(240, 240, 155))
        case = find_cases(folder).cases[0]
        cache = CaseCache(Path(scratch) / "cache")
        config = PreprocessConfig()
        cache.get(case, DEFAULT_MODALITIES, config)
        ways: dict[str, Callable[[], object]] = {
            "textbook (nibabel float64, numpy)": lambda: textbook(case),
            "prepare": lambda: prepare(case, DEFAULT_MODALITIES, config),
            "from the cache, every voxel read": lambda: np.array(cache.get(case, DEFAULT_MODALITIES, config).image),
        }
        medians = {}
        for name, work in ways.items():
            seconds = best_of(asked.runs, work)
            medians[name] = seconds[len(seconds) // 2]
            print(f"{name:>34}: median {medians[name]:.3f} s (min {seconds[0]:.3f}, max {seconds[-1]:.3f}, n = {asked.runs})")
        slow, fast, cached = medians.values()
        print(f"textbook / prepare = {slow / fast:.1f}; prepare / cache = {fast / cached:.1f}")


if __name__ == "__main__":
    main()
