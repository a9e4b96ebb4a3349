"""BrainUNet and the networks it is compared with, trained for the same time on the same cases by the same trainer.

    python -m benchmarks.baselines [--minutes 5] [--seeds 1 2 3] [--data DIR --holdout ID,ID] [--presets brainunet mednext-s]
                                   [--stage cpu] [--set train.learning_rate=5e-4] [--json]

Without --data on made-up cases, a third of them held out. Each network is trained by the same stage's settings for the same
minutes of steps, from random weights, and its last weights are scored: nothing is chosen on the held-out cases. None is tuned,
so this compares how far each gets in the time, not how far it could get. A baseline without its package
(deploy/set-up-baselines.sh) is left out with the reason. A few minutes say something of cost and little of quality.

Printed for each network: parameters, MB in fp32, steps, seconds per step, seconds per held-out volume (windows), mean Dice of
ET, TC and WT on the held-out cases (mean over the seeds; for WT also the lowest and the highest), and how far its whole-tumour
Dice is from the first network's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from brainunet.config import PreprocessConfig
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
from brainunet.study.fit import Moment, fit
from brainunet.study.settings import FitConfig, stage_settings
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import Training

PRESETS = ("brainunet", "brainunet-fast", "brainunet-lite", "brainunet-small", "nnunet-plain", "mednext-s")
SEED = 1  # of the phantoms
WIDTH = 9  # of a column


@dataclass(frozen=True)
class Row:
    """One training's figures."""

    preset: str
    seed: int
    parameters: int
    mb: float
    steps: int
    seconds_per_step: float
    seconds_per_volume: float
    dice: dict[str, float | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, for each network")
    parser.add_argument("--data", type=Path, help="folder of labelled cases; without it phantoms")
    parser.add_argument("--holdout", default="", help="case ids to score on, with commas; needed with --data")
    parser.add_argument("--convention", help="brats2021 or brats2023, where file names don't tell")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--stage", default="cpu", help="committed settings (see brainunet/study/stages)")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], help="one setting, such as train.patch=[64,64,64]"
    )
    parser.add_argument("--cases", type=int, default=6, help="phantoms to make, a third of them held out")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        training, held_out = cases_of(asked, Path(folder))
    rows, left_out = list[Row](), dict[str, str]()
    for preset in asked.presets:
        for seed in asked.seeds:
            try:
                rows.append(measure(config_of(asked, preset, seed), training, held_out))
            except ConfigError as error:
                left_out[preset] = str(error)
                break
    if asked.json:
        told = [asdict(row) for row in rows]
        print(json.dumps({"cases": len(training), "held_out": len(held_out), "rows": told, "left_out": left_out}))
        return
    print(
        f"{asked.minutes:g} minutes each, stage {asked.stage}, on {len(training)} cases, {len(asked.seeds)} seeds; "
        f"Dice of the last weights on {len(held_out)} held-out cases"
    )
    print_table(rows)
    for preset, reason in left_out.items():
        print(f"left out: {preset}: {reason}")


def config_of(asked: argparse.Namespace, preset: str, seed: int) -> FitConfig:
    options = {"minutes": asked.minutes, "seed": seed, "model": {"preset": preset, "norm": default_norm(preset)}}
    return load(FitConfig, overrides=asked.settings, base=stage_settings(asked.stage), options=options)


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


def measure(config: FitConfig, training: Sequence[PreparedCase], held_out: Sequence[PreparedCase]) -> Row:
    """Train one network and score what it ended with.

    Raises:
        ConfigError: an unknown preset, or a baseline whose package is missing.
    """
    name = f"{config.model.preset}, seed {config.seed}"
    size = size_of(config.model, (64, 64, 64))
    network, last = build(config.model, seed=config.seed), list[Moment]()

    def on_step(state: Training, share: float) -> None:
        if state.done % 20 == 1:
            say(f"{name}: step {state.done}, loss {state.losses[-1]:.3f}, {share:.0%}")

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder) / "training.ckpt", name, every_steps=10**9)
        fitted = fit(network, training, (), config, checkpoint=checkpoint, on_step=on_step, on_scored=last.append)
    scores, seconds = [], 0.0
    for number, case in enumerate(held_out):
        assert case.label is not None
        started = time.perf_counter()
        labels = predict_labels(last[-1].network, case.image, config.validation.window)
        seconds += time.perf_counter() - started
        scores.append(score_case(str(number), labels, case.label, case.spacing_mm, metrics=("dice",)))
        say(f"{name}, held-out case {number}: " + ", ".join(f"{r.structure} {r.value:.3f}" for r in scores[-1].rows if r.value))
    means = mean_of(site_score(scores))
    return Row(
        preset=config.model.preset,
        seed=config.seed,
        parameters=size.parameters,
        mb=size.n_bytes / 1e6,
        steps=len(fitted.losses),
        seconds_per_step=fitted.scores[-1].seconds / len(fitted.losses),
        seconds_per_volume=seconds / len(held_out),
        dice={region.value: means.get(region.value) for region in Region},
    )


def print_table(rows: Sequence[Row]) -> None:
    columns = ("network", "M param.", "MB", "steps", "s/step", "s/volume", "ET", "TC", "WT", "lowest", "highest", "to first")
    print("".join(f"{column:>{WIDTH + 6 * (column == 'network')}}" for column in columns))
    first: float | None = None
    for preset in dict.fromkeys(row.preset for row in rows):
        own = [row for row in rows if row.preset == preset]
        whole = [value for row in own if (value := row.dice["WT"]) is not None]
        mean = fmean(whole) if whole else None
        first = mean if first is None else first
        cells = (
            *(f"{own[0].parameters / 1e6:.2f}", f"{own[0].mb:.1f}", f"{fmean(row.steps for row in own):.0f}"),
            f"{fmean(row.seconds_per_step for row in own):.2f}",
            f"{fmean(row.seconds_per_volume for row in own):.2f}",
            *(figure(own, region) for region in ("ET", "TC", "WT")),
            *((f"{min(whole):.3f}", f"{max(whole):.3f}") if whole else ("-", "-")),
            "-" if mean is None or first is None else f"{mean - first:+.3f}",
        )
        print(f"{preset:>{WIDTH + 6}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells))


def figure(rows: Sequence[Row], region: str) -> str:
    known = [value for row in rows if (value := row.dice[region]) is not None]
    return f"{fmean(known):.3f}" if known else "-"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
