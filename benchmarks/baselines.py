"""BrainUNet and the networks it is compared with, trained for the same time on the same cases by the same trainer.

    python -m benchmarks.baselines [--minutes 5] [--data DIR --holdout ID,ID] [--patch 64] [--presets brainunet mednext-s]
                                   [--json]

Without --data on made-up cases, a third of them held out. Each network gets the same minutes of steps, patches drawn from the
same seeds, the same loss, optimizer and learning rate; none is tuned, so this compares how far each gets in the time, not how
far it could get. A baseline without its package (deploy/set-up-baselines.sh) is left out with the reason. A few minutes say
something of cost and little of quality.

Printed for each network: parameters, MB in fp32, steps, seconds per step, seconds per held-out volume (windows of 96^3), mean
Dice of ET, TC and WT on the held-out cases, and how far its whole-tumour Dice is from the first network's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from brainunet.config import ModelConfig, PreprocessConfig, TrainConfig, ValidationConfig
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
from brainunet.settings import load
from brainunet.training.loop import train

PRESETS = ("brainunet", "brainunet-fast", "brainunet-lite", "nnunet-plain", "mednext-s")
MANY_STEPS = 1_000_000
SEED = 1
WIDTH = 12  # of a column


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
        f"{asked.minutes:g} minutes each on {len(training)} cases, patches of {asked.patch}^3; "
        f"Dice on {len(held_out)} held-out cases"
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
    training: list[PreparedCase] = []
    held_out: list[PreparedCase] = []
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
    scores, seconds_predicting = [], 0.0
    for number, case in enumerate(held_out):
        assert case.label is not None
        started = time.perf_counter()
        labels = predict_labels(network, case.image, ValidationConfig().window)
        seconds_predicting += time.perf_counter() - started
        scores.append(score_case(str(number), labels, case.label, case.spacing_mm, metrics=("dice",)))
    per_volume = seconds_predicting / len(held_out)
    means = mean_of(site_score(scores))
    dice = {region.value: means.get(region.value) for region in Region}
    say(f"{preset}: scored")
    return Row(preset, size.parameters, size.n_bytes / 1e6, steps, took / max(1, steps), per_volume, dice)


def train_for(
    seconds: float, network: nn.Module, cases: Sequence[PreparedCase], patch: int, say: Callable[[str], None]
) -> tuple[int, float]:
    """Steps done and the seconds they took, after the first: it does what is done once (memory, trying bf16)."""
    config = TrainConfig(steps=MANY_STEPS, batch_size=2, patch=(patch, patch, patch), learning_rate=1e-3, warmup_steps=10)
    ends: list[float] = []

    def on_step(step: int, loss: float) -> None:
        ends.append(time.perf_counter())
        if ends[-1] - ends[0] >= seconds:
            raise TimeIsUpError
        if step % 10 == 1:
            say(f"step {step}, loss {loss:.3f}, {ends[-1] - ends[0]:.0f} of {seconds:.0f} s")

    with suppress(TimeIsUpError):
        train(network, cases, config, seed=SEED, on_step=on_step)
    return len(ends) - 1, ends[-1] - ends[0]


def print_table(rows: Sequence[Row]) -> None:
    columns = ("network", "M param.", "MB", "steps", "s/step", "s/volume", "ET", "TC", "WT", "WT to first")
    first = rows[0].dice["WT"] if rows else None
    print("".join(f"{column:>{WIDTH + 3 * (column == 'network')}}" for column in columns))
    for row in rows:
        dice = [row.dice[region] for region in ("ET", "TC", "WT")]
        whole = dice[-1]
        cells = (
            *(f"{row.parameters / 1e6:.2f}", f"{row.mb:.1f}", f"{row.steps}"),
            *(f"{row.seconds_per_step:.2f}", f"{row.seconds_per_volume:.2f}"),
            *("-" if value is None else f"{value:.3f}" for value in dice),
            "-" if whole is None or first is None else f"{whole - first:+.3f}",
        )
        print(f"{row.preset:>{WIDTH + 3}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
