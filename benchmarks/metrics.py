"""Seconds for every metric of all five structures of a 240 x 240 x 155 pair, against the obvious way in the same run.

    python benchmarks/metrics.py [--truth FILE --convention brats2021] [--runs 5] [--stray 20]

Without --truth a phantom is made up. The prediction is the truth moved by two voxels, without its smallest pieces and with
some stray ones. The obvious way takes each metric by itself on the whole volume: distance transforms for HD95 and again for
each tolerance, and for each lesion a mask, a dilation and two distance transforms of the whole volume. It gives the same
figures, and the largest difference is printed.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainunet.data.cases import find_cases
from brainunet.data.phantom import write_phantoms
from brainunet.data.preprocess import read_label
from brainunet.data.volumes import read_volume
from brainunet.labels import Convention
from brainunet.metrics import METRICS
from brainunet.metrics.report import STRUCTURES, score_case
from brainunet.metrics.surfels import CORNERS, areas_mm2

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint8]
NEAR, TOUCHING = ndimage.generate_binary_structure(3, 2), np.ones((3, 3, 3), bool)


def pair(truth: Labels, stray: int) -> Labels:
    predicted = np.roll(truth, (2, 0, 0), axis=(0, 1, 2))
    pieces, n = ndimage.label(predicted > 0, TOUCHING)
    sizes = np.bincount(pieces.ravel(), minlength=n + 1)
    predicted[(sizes < 30)[pieces]] = 0
    generator = np.random.default_rng(0)
    for _ in range(stray):
        x, y, z = (int(generator.integers(40, side - 40)) for side in truth.shape)
        predicted[x : x + 3, y : y + 3, z : z + 2] = generator.integers(1, 4)
    return predicted


def obvious(predicted: Labels, truth: Labels) -> dict[tuple[str, str], float]:
    values: dict[tuple[str, str], float] = {}
    for structure, labels in STRUCTURES.items():
        p, t = np.isin(predicted, labels), np.isin(truth, labels)
        values[structure, "dice"] = dice(p, t)
        values[structure, "hd95_mm"] = hd95(p, t)
        values[structure, "nsd_0_5mm"] = nsd(p, t, 0.5)
        values[structure, "nsd_1mm"] = nsd(p, t, 1.0)
        score, mm = lesions(p, t)
        values[structure, "lesion_dice"], values[structure, "lesion_hd95_mm"] = score, mm
    return values


def dice(p: Mask, t: Mask) -> float:
    return float(2 * (p & t).sum() / (p.sum() + t.sum())) if p.any() or t.any() else 1.0


def edges(mask: Mask) -> tuple[Mask, npt.NDArray[np.float64]]:
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = sum(
        (padded[tuple(slice(c, c + side + 1) for c, side in zip(corner, mask.shape, strict=True))].astype(np.int64) << bit)
        for bit, corner in enumerate(CORNERS)
    )
    codes = np.asarray(codes)
    return (codes > 0) & (codes < 255), areas_mm2((1.0, 1.0, 1.0))[codes]


def distances(p: Mask, t: Mask) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    (p_edge, p_area), (t_edge, t_area) = edges(p), edges(t)
    from_t = ndimage.distance_transform_edt(~p_edge)[t_edge]
    from_p = ndimage.distance_transform_edt(~t_edge)[p_edge]
    return [(from_p, p_area[p_edge]), (from_t, t_area[t_edge])]


def hd95(p: Mask, t: Mask) -> float:
    if not p.any() or not t.any():
        return 374.0 if p.any() or t.any() else 0.0
    worst = 0.0
    for mm, areas in distances(p, t):
        order = np.argsort(mm)
        share = np.cumsum(areas[order]) / areas.sum()
        worst = max(worst, float(mm[order][min(int(np.searchsorted(share, 0.95)), len(mm) - 1)]))
    return worst


def nsd(p: Mask, t: Mask, tolerance: float) -> float:
    if not p.any() or not t.any():
        return 0.0 if p.any() or t.any() else 1.0
    both = distances(p, t)
    return float(sum(a[mm <= tolerance].sum() for mm, a in both) / sum(a.sum() for _, a in both))


def lesions(p: Mask, t: Mask) -> tuple[float, float]:
    components, n = ndimage.label(p, TOUCHING)
    numbers, pieces = ndimage.label(ndimage.binary_dilation(t, NEAR, iterations=3), TOUCHING)
    unclaimed, scores = set(range(1, n + 1)), []
    for number in range(1, pieces + 1):
        lesion = t & (numbers == number)
        touched = set(np.unique(components[ndimage.binary_dilation(lesion, NEAR, iterations=3)]).tolist()) - {0}
        unclaimed -= touched
        if lesion.sum() > 50:
            together = np.isin(components, list(touched))
            scores.append((dice(together, lesion), hd95(together, lesion)) if touched else (0.0, 374.0))
    total = len(scores) + len(unclaimed)
    if total == 0:
        return 1.0, 0.0
    return sum(s for s, _ in scores) / total, (sum(mm for _, mm in scores) + 374 * len(unclaimed)) / total


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, help="a segmentation of 1 mm voxels")
    parser.add_argument("--convention", type=Convention, default=Convention.BRATS2023)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--stray", type=int, default=20, help="stray pieces in the prediction")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = asked.truth
        if path is None:
            write_phantoms(Path(scratch), cases=1, style="ssa", seed=0, shape=(240, 240, 155))
            path = find_cases(Path(scratch)).cases[0].label
        assert path is not None
        truth = read_label(path, read_volume(path), asked.convention)
    predicted = pair(truth, asked.stray)
    print(f"{path.name}: {np.count_nonzero(truth)} tumour voxels, {ndimage.label(truth > 0, TOUCHING)[1]} pieces; ", end="")
    print(f"prediction {ndimage.label(predicted > 0, TOUCHING)[1]} pieces")
    score = score_case("case", predicted, truth, (1.0, 1.0, 1.0))
    runs = sorted(seconds(lambda: score_case("case", predicted, truth, (1.0, 1.0, 1.0))) for _ in range(asked.runs))
    wall, cpu = runs[len(runs) // 2]
    print(f"all {len(METRICS)} metrics, 5 structures: median {wall:.2f} s wall, {cpu:.2f} s processor ", end="")
    print(f"(wall {runs[0][0]:.2f} to {runs[-1][0]:.2f}, n = {asked.runs})", flush=True)
    values: dict[tuple[str, str], float] = {}
    slow, slow_cpu = seconds(lambda: values.update(obvious(predicted, truth)))
    print(f"the obvious way, 6 of the metrics: {slow:.1f} s wall, {slow_cpu:.1f} s processor (n = 1)")
    ours = {(row.structure, row.metric): row.value for row in score.rows}
    apart = max(abs(value - (ours[key] or 0.0)) for key, value in values.items())  # type: ignore[index]
    print(f"obvious / ours = {slow / wall:.0f}; largest difference of a figure {apart:.1e}")
    assert math.isfinite(apart)


if __name__ == "__main__":
    main()
