"""BrainUNet and the networks it is compared with, trained for the same time on the same cases by the same trainer.

    python -m benchmarks.baselines [--minutes 5] [--data DIR --holdout ID,ID] [--patch 64] [--presets brainunet mednext-s] [--json]

Without --data on made-up cases (of which the last is held out). Each network gets the same minutes of steps, patches drawn from
the same seeds, the same loss, optimizer and learning rate; none is tuned, so this compares how far each gets in the time, not how
far it could get. A baseline without its package (deploy/set-up-baselines.sh) is left out with the reason. The figures of a few
minutes say something of cost and little of quality: look at the last column first.

Printed per network: parameters, MB in fp32, steps, seconds per step, seconds per held-out volume (windows of 96^3), mean Dice of
ET, TC and WT on the held-out cases, and its whole-tumour Dice against the first network's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from brainunet.config import ModelConfig, PreprocessConfig, TrainConfig, ValidationConfig, load
from brainunet.data.cases import find_cases, parse_convention
from brainunet.data.phantom import write_phantoms
from brainunet.data.preprocess import PreparedCase, prepare
from brainunet.errors import ConfigError, UsageError
from brainunet.inference.predictor import predict_labels
from brainunet.labels import DEFAULT_MODALITIES, Region
from brainunet.metrics.report import score_case
from brainunet.metrics.summary import mean_of, site_score
from brainunet.model import build, size_of
from brainunet.presets import default_norm
from brainunet.training.loop import train

PRESETS = ("brainunet", "brainunet-fast", "brainunet-lite", "nnunet-plain", "mednext-s")
MANY_STEPS = 1_000_000
SEED = 1


@dataclass(frozen=True)
class Row:
    """One network's figures; what could not be had is None."""

    preset: str
    parameters: int
    mb: float
    steps: int
    seconds_per_step: float
    seconds_per_volume: float
    dice: dict[str, float | None]


class TimeIsUpError(Exception):
    """Ends a training from outside."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, for each network")
    parser.add_argument("--data", type=Path, help="folder of labelled cases; without it phantoms")
    parser.add_argument("--holdout", default="", help="case ids to score on, with commas; needed with --data")
    parser.add_argument("--convention", help="brats2021 or brats2023, where file names don't tell")
    parser.add_argument("--patch", type=int, default=64, help="side of a training patch")
    parser.add_argument("--cases", type=int, default=6, help="phantoms to make, a third of them held out")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        training, held_out = cases_of(asked, Path(folder))
    rows, left_out = [], {}
    for preset in asked.presets:
        try:
            rows.append(measure(preset, training, held_out, asked.minutes * 60, asked.patch))
        except ConfigError as error:
            left_out[preset] = str(error)
    if asked.json:
        print(
            json.dumps(
                {"cases": len(training), "held_out": len(held_out), "rows": [asdict(r) for r in rows], "left_out": left_out}
            )
        )
        return
    print(
        f"{asked.minutes:g} minutes each on {len(training)} cases, patches of {asked.patch}^3; Dice on {len(held_out)} held-out cases"
    )
    print_table(rows)
    for preset, reason in left_out.items():
        print(f"left out: {preset}: {reason}")


def cases_of(asked: argparse.Namespace, folder: Path) -> tuple[list[PreparedCase], list[PreparedCase]]:
    """To train on, and held out.

    Raises:
        UsageError: --data without --holdout, an id that is not there, or nothing to train or to score on.
    """
    if asked.data is None:
        ids = write_phantoms(folder, cases=asked.cases, style="ssa", seed=SEED, shape=(96, 96, 96))
        wanted = ids[-max(1, asked.cases // 3) :]
        found = find_cases(folder).cases
    else:
        wanted = [name.strip() for name in asked.holdout.split(",") if name.strip()]
        found = find_cases(asked.data, modalities=DEFAULT_MODALITIES, convention=parse_convention(asked.convention)).cases
    labelled = [case for case in found if case.label is not None]
    unknown = sorted(set(wanted) - {case.case_id for case in labelled})
    if unknown or not wanted or len(labelled) <= len(set(wanted)):
        raise UsageError(
            "--holdout",
            found=f"{', '.join(unknown)} is not among the {len(labelled)} labelled cases" if unknown else f"{len(wanted)} ids",
            expected=f"ids of some of the {len(labelled)} labelled cases, and others left to train on",
        )
    training, held_out = [], []
    for case in labelled:
        prepared = prepare(case, DEFAULT_MODALITIES, PreprocessConfig())
        (held_out if case.case_id in wanted else training).append(prepared)
    return training, held_out


def measure(preset: str, training: Sequence[PreparedCase], held_out: Sequence[PreparedCase], seconds: float, patch: int) -> Row:
    """Train one network for so long and score it.

    Raises:
        ConfigError: an unknown preset, or a baseline whose package is missing.
    """
    model = load(ModelConfig, base={"preset": preset, "norm": default_norm(preset)})
    size = size_of(model, (64, 64, 64))
    network = build(model, seed=SEED)
    steps, took = train_for(seconds, network, training, patch, say=lambda text: say(f"{preset}: {text}"))
    scores, started = [], time.perf_counter()
    for number, case in enumerate(held_out):
        assert case.label is not None
        scores.append(score_case(str(number), predict_labels(network, case.image, ValidationConfig().window), case.label))
    per_volume = (time.perf_counter() - started) / len(held_out)
    means = mean_of(site_score(scores))
    dice = {region.value: means.get(region.value) for region in Region}
    say(f"{preset}: scored")
    return Row(preset, size.parameters, size.n_bytes / 1e6, steps, took / max(1, steps), per_volume, dice)


def train_for(
    seconds: float, network: nn.Module, cases: Sequence[PreparedCase], patch: int, say: Callable[[str], None]
) -> tuple[int, float]:
    """Steps done and seconds they took; the clock starts with the first step's end, which also holds what is tried only once."""
    config = TrainConfig(steps=MANY_STEPS, batch_size=2, patch=(patch, patch, patch), learning_rate=1e-3, warmup_steps=10)
    ends: list[float] = []

    def on_step(step: int, loss: float) -> None:
        ends.append(time.perf_counter())
        if ends[-1] - ends[0] >= seconds:
            raise TimeIsUpError
        if step % 10 == 1:
            say(f"step {step}, loss {loss:.3f}, {ends[-1] - ends[0]:.0f} of {seconds:.0f} s")

    try:
        train(network, cases, config, seed=SEED, on_step=on_step)
    except TimeIsUpError:
        pass
    return len(ends) - 1, ends[-1] - ends[0]


def print_table(rows: Sequence[Row]) -> None:
    print(
        f"{'network':>16}  {'M param.':>8}  {'MB':>6}  {'steps':>5}  {'s/step':>6}  {'s/volume':>8}  {'ET':>5}  {'TC':>5}  {'WT':>5}  to first"
    )
    first = rows[0].dice["WT"] if rows else None
    for row in rows:
        dice = [row.dice[region] for region in ("ET", "TC", "WT")]
        figures = "  ".join("    -" if value is None else f"{value:5.3f}" for value in dice)
        whole = dice[-1]
        against = f"{whole - first:+.3f}" if whole is not None and first is not None else "-"
        print(
            f"{row.preset:>16}  {row.parameters / 1e6:8.2f}  {row.mb:6.1f}  {row.steps:5d}  {row.seconds_per_step:6.2f}  "
            f"{row.seconds_per_volume:8.2f}  {figures}  {against:>8}"
        )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
