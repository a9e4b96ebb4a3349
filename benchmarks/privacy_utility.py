"""What privacy costs in Dice: a simulated federation at several epsilons and without, several seeds each; a table and a curve.

    python -m benchmarks.privacy_utility --out DIR [--epsilons 2 8 32] [--seeds 1 2 3] [--sites 2] [--cases 40] [--rounds 10]
        [--steps 20] [--cases-per-step 8] [--patches 1] [--side 64] [--rate 1e-3]

Phantoms in the style of BraTS-Africa, ``--cases`` to train on at each site and a quarter as many to score on; the nano
starter model, which was trained on other phantoms, is fine-tuned. The runs without privacy see as many cases in a step
and take as many steps. Left in DIR: ``privacy_utility.json`` with every figure, ``privacy_utility.png``. A run that is
there already is not made again, so that the benchmark can be stopped and given again; DIR holds runs of the same settings
alone. Phantoms are no patients: the figures tell the price of noise, not a clinical one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

REGION = "WT"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[2.0, 8.0, 32.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cases-per-step", type=int, default=8)
    parser.add_argument("--patches", type=int, default=1, help="patches of a case that make its gradient")
    parser.add_argument("--side", type=int, default=64, help="voxels of a phantom's side; patches are 32")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of every run")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if found := other_settings(asked):
        parser.error(f"{asked.out} has runs with other settings ({found}), and one curve is of one kind: take another folder")
    data = phantoms(asked)
    results: list[dict[str, Any]] = []
    for epsilon in (None, *asked.epsilons):
        for seed in asked.seeds:
            summary = simulated(asked, data, epsilon, seed)
            first, last = (summary["rounds"][place]["mean_dice"] for place in (0, -1))
            spent = max((site["epsilon"] for site in summary.get("privacy", {}).values()), default=None)
            results.append({"epsilon": epsilon, "seed": seed, "spent": spent, "before": first, "after": last})
            print(f"epsilon {epsilon or 'none'}, seed {seed}: {REGION} {first[REGION]:.3f} -> {last[REGION]:.3f}", flush=True)
    facts = {"settings": {name: str(value) for name, value in vars(asked).items()}, "runs": results}
    (asked.out / "privacy_utility.json").write_text(json.dumps(facts, indent=1) + "\n")
    for line in table(results, asked.epsilons):
        print(line)
    plot(asked.out / "privacy_utility.png", results, asked.epsilons, f"{asked.sites} sites of {asked.cases} cases")


def other_settings(asked: argparse.Namespace) -> str:
    """What the runs that are there already were made with, where it differs from what is asked; empty if nothing does."""
    kept = asked.out / "settings.json"
    own = {name: value for name, value in vars(asked).items() if name not in ("out", "epsilons", "seeds")}
    if not kept.exists():
        kept.write_text(json.dumps(own) + "\n")
    before: dict[str, Any] = json.loads(kept.read_text())
    return ", ".join(f"{name} {value}" for name, value in before.items() if own.get(name) != value)


def phantoms(asked: argparse.Namespace) -> Path:
    """The cases of all runs, made once: a fifth of each site's is held out, whatever the seed."""
    from brainunet.data.phantom import write_phantoms

    data: Path = asked.out / "cases"
    if not data.exists():
        cases = asked.sites * asked.cases * 5 // 4
        write_phantoms(data, cases=cases, style="ssa", seed=11, shape=(asked.side,) * 3)
    return data


def simulated(asked: argparse.Namespace, data: Path, epsilon: float | None, seed: int) -> dict[str, Any]:
    out = asked.out / f"epsilon-{'none' if epsilon is None else f'{epsilon:g}'}-seed-{seed}"
    summary = out / "summary.json"
    if not summary.exists():
        delta = 0.1 / asked.cases
        private = f"eps={epsilon},delta={delta},cases_per_step={asked.cases_per_step},patches_per_case={asked.patches}"
        sets = (
            *("train.patch=[32,32,32]", f"train.steps={asked.steps}", f"train.learning_rate={asked.rate}"),
            *(f"train.batch_size={asked.cases_per_step}", "validation.window=[64,64,64]"),
        )
        command = [sys.executable, "-c", "from brainunet_sim.cli import main; main()", "--quiet", "--overwrite"]
        command += ["--out", str(out), "--data", str(data), "--sites", str(asked.sites), "--rounds", str(asked.rounds)]
        command += ["--seed", str(seed), *(word for one in sets for word in ("--set", one))]
        command += [] if epsilon is None else ["--privacy", private]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    told: dict[str, Any] = json.loads(summary.read_text())
    return told


def after(results: Sequence[dict[str, Any]], epsilon: float | None) -> list[float]:
    return [run["after"][REGION] for run in results if run["epsilon"] == epsilon]


def table(results: Sequence[dict[str, Any]], epsilons: Sequence[float]) -> list[str]:
    """Mean, spread over seeds, and what was lost beside the same seed without privacy."""
    bare = after(results, None)
    lines = [f"start model: {REGION} Dice {statistics.mean(run['before'][REGION] for run in results):.3f}"]
    lines.append(f"without privacy: {statistics.mean(bare):.3f} ({min(bare):.3f} to {max(bare):.3f}, {len(bare)} seeds)")
    for epsilon in epsilons:
        here = after(results, epsilon)
        lost = [without - with_it for without, with_it in zip(bare, here, strict=True)]
        lines.append(
            f"epsilon {epsilon:g}: {statistics.mean(here):.3f} ({min(here):.3f} to {max(here):.3f}); "
            f"lost {statistics.mean(lost):.3f} ({min(lost):.3f} to {max(lost):.3f})"
        )
    return lines


def plot(path: Path, results: Sequence[dict[str, Any]], epsilons: Sequence[float], title: str) -> None:
    """Dice against epsilon: a point for each seed, the line of their means; without privacy as a band from worst to best."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    order = sorted(epsilons)
    means = [statistics.mean(after(results, epsilon)) for epsilon in order]
    axes.plot(order, means, color="#0072B2", lw=2, label="private, mean of seeds")
    for epsilon in order:
        here = after(results, epsilon)
        axes.plot([epsilon] * len(here), here, "o", color="#0072B2", ms=5, alpha=0.7)
    bare = after(results, None)
    axes.axhspan(min(bare), max(bare), color="#D55E00", alpha=0.15)
    axes.axhline(statistics.mean(bare), color="#D55E00", lw=2, label="without privacy, mean and range of seeds")
    axes.axhline(
        statistics.mean(run["before"][REGION] for run in results),
        color="grey",
        ls="--",
        lw=1.5,
        label="the model it started from",
    )
    axes.set_xscale("log")
    axes.set_xticks(order, [f"{epsilon:g}" for epsilon in order])
    axes.minorticks_off()
    axes.set_xlabel("epsilon of each site (smaller is more private)")
    axes.set_ylabel("Dice, whole tumour, mean over validation cases")
    axes.set_title(f"What privacy costs on phantoms: {title}")
    axes.grid(alpha=0.3)
    axes.legend(loc="center right", fontsize=9)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
