"""An attack: can a model tell who was in its training? With the same training, without privacy and at epsilon 8.

    python -m benchmarks.membership_inference [--cases 24] [--steps 300] [--epsilon 8] [--seeds 1 2 3]

A nano network is over-fitted on made-up cases (noise, in which a tumour is hard to see), and the attacker looks at one
number of each case, of members and of others that were made alike: the loss (S. Yeom et al., CSF 2018,
arXiv:1709.01604) and the length of the loss's gradient (M. Nasr et al., S&P 2019, arXiv:1812.00910). Members have less
of both. The advantage is the share of members found minus the share of others accused, at a threshold that was chosen
on the other half of the cases: 0 is guessing, 1 knows. Printed with the interval that holds 95 % of 2000 draws of the
cases (bootstrap), and with what theory allows: at epsilon and delta no attack has a larger advantage than (e^epsilon -
1 + 2 delta) / (e^epsilon + 1).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from brainunet.config import AugmentConfig, ModelConfig, PrivacyConfig, TrainConfig
from brainunet.data.preprocess import PreparedCase
from brainunet.labels import Label
from brainunet.losses import loss_from
from brainunet.model import build
from brainunet.privacy.accounting import Charge, epsilon_of
from brainunet.privacy.calibration import noise_for
from brainunet.training.chance import Chance
from brainunet.training.loop import train
from brainunet.training.private import train_privately

Floats: TypeAlias = npt.NDArray[np.float64]

SIDE = 16  # voxels of a case and of a patch: nothing is cut, and every epoch sees the same
DRAWS = 2000
DELTA_SHARE = 0.1  # of 1 / cases


@dataclass(frozen=True)
class Advantage:
    """Of an attack, with the bounds that hold 95 % of the draws."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:5.2f} ({self.low:5.2f} to {self.high:5.2f})"


def made_up(seed: int) -> PreparedCase:
    """Noise of deviation 1, and a tumour of random place and size that raises it by a quarter."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1, (3, SIDE, SIDE, SIDE))
    label = np.zeros((SIDE, SIDE, SIDE), np.uint8)
    size = rng.integers(4, 9, 3)
    corner = [int(rng.integers(0, SIDE - side + 1)) for side in size]
    box = tuple(slice(start, start + int(side)) for start, side in zip(corner, size, strict=True))
    label[box] = rng.choice([Label.SNFH, Label.NETC, Label.ET], size=label[box].shape)
    image[(slice(None), *box)] += 0.25
    sides = ((0, SIDE), (0, SIDE), (0, SIDE))
    return PreparedCase(image.astype(np.float16), label, sides, np.eye(4), (SIDE, SIDE, SIDE), (1.0, 1.0, 1.0))


def settings(steps: int) -> TrainConfig:
    """Long, without augmentation or decay: made to over-fit."""
    return TrainConfig(
        steps=steps,
        batch_size=4,
        patch=(SIDE, SIDE, SIDE),
        learning_rate=2e-3,
        weight_decay=0.0,
        augment=AugmentConfig(preset="none"),
        precision="fp32",
    )


def trained(members: Sequence[PreparedCase], steps: int, seed: int, epsilon: float | None) -> tuple[nn.Module, float | None]:
    """A network that has seen the members, and the epsilon that it has cost (None: no privacy)."""
    network, config = build(ModelConfig(preset="brainunet-nano"), seed=seed), settings(steps)
    if epsilon is None:
        train(network, members, config, seed=seed, workers=0)
        return network, None
    privacy = PrivacyConfig(epsilon=epsilon, delta=DELTA_SHARE / len(members), rounds=1, cases_per_step=config.batch_size)
    rate = config.batch_size / len(members)
    step = Charge(noise_for(epsilon, privacy.delta, rate=rate, steps=steps), rate, steps)
    train_privately(network, members, config, privacy, step, before_step=lambda number: None, chance=Chance(seed=seed))
    return network, epsilon_of([step], privacy.delta)


def losses(network: nn.Module, cases: Sequence[PreparedCase]) -> Floats:
    return np.array([_loss(network, case).item() for case in cases])


def gradient_norms(network: nn.Module, cases: Sequence[PreparedCase]) -> Floats:
    norms = []
    for case in cases:
        network.zero_grad(set_to_none=True)
        _loss(network, case).backward()  # type: ignore[no-untyped-call]
        norms.append(nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]).item())
    network.zero_grad(set_to_none=True)
    return np.array(norms)


ATTACKS: dict[str, Callable[[nn.Module, Sequence[PreparedCase]], Floats]] = {"loss": losses, "gradient norm": gradient_norms}


def advantage(members: Floats, others: Floats, seed: int = 0) -> Advantage:
    """Of calling everybody a member whose number is below a threshold.

    >>> advantage(np.arange(20.0), np.arange(20.0) + 100).value
    1.0
    """
    rng = np.random.default_rng(seed)
    halves = [(part[::2], part[1::2]) for part in (members, others)]
    found = []
    for here, there in ((0, 1), (1, 0)):
        threshold = _best_threshold(halves[0][here], halves[1][here])
        found.append((halves[0][there] < threshold, halves[1][there] < threshold))
    hits, alarms = (np.concatenate([pair[kind] for pair in found]) for kind in (0, 1))
    draws = [rng.choice(hits, hits.size).mean() - rng.choice(alarms, alarms.size).mean() for _ in range(DRAWS)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Advantage(float(hits.mean() - alarms.mean()), float(low), float(high))


def most_possible(epsilon: float, delta: float) -> float:
    """The largest advantage of any attack on a training with this epsilon and delta (Kairouz et al. 2015, arXiv:1311.0776).

    >>> most_possible(0.0, 0.0), round(most_possible(1.0, 0.0), 3)
    (0.0, 0.462)
    """
    return min(1.0, (math.expm1(epsilon) + 2 * delta) / (math.exp(epsilon) + 1))


def attacked(cases: int, steps: int, epsilon: float | None, seeds: Sequence[int]) -> tuple[dict[str, Advantage], float | None]:
    """Every attack on trainings of ``cases`` members each, their cases taken together, and what they have cost."""
    numbers: dict[str, tuple[list[Floats], list[Floats]]] = {name: ([], []) for name in ATTACKS}
    cost: float | None = None
    for seed in seeds:
        everyone = [made_up(1000 * seed + number) for number in range(2 * cases)]
        members, others = everyone[:cases], everyone[cases:]
        network, cost = trained(members, steps, seed, epsilon)
        network.eval()
        for name, attack in ATTACKS.items():
            inside, outside = attack(network, members), attack(network, others)
            # trainings differ in their level: each case beside the others of its training
            level, spread = np.median(np.concatenate([inside, outside])), np.std(np.concatenate([inside, outside]))
            numbers[name][0].append((inside - level) / spread)
            numbers[name][1].append((outside - level) / spread)
    return {name: advantage(np.concatenate(inside), np.concatenate(out)) for name, (inside, out) in numbers.items()}, cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    asked = parser.parse_args()
    delta = DELTA_SHARE / asked.cases
    print(f"{asked.cases} members and as many others, {asked.steps} steps, {len(asked.seeds)} trainings of each kind")
    for epsilon in (None, asked.epsilon):
        found, cost = attacked(asked.cases, asked.steps, epsilon, asked.seeds)
        title = "without privacy" if cost is None else f"epsilon {cost:.2f} at delta {delta:.2g}"
        bound = "" if cost is None else f"; theory allows {most_possible(cost, delta):.3f}"
        for name, value in found.items():
            print(f"  {title}, {name} below a threshold: advantage {value}{bound}")


def _loss(network: nn.Module, case: PreparedCase) -> torch.Tensor:
    assert case.label is not None
    image = torch.from_numpy(case.image.astype(np.float32))[None]
    return loss_from(TrainConfig().loss)(network(image), torch.from_numpy(case.label)[None])


def _best_threshold(members: Floats, others: Floats) -> float:
    """The one with the largest advantage on these cases; below all of them if none has any."""
    edges = np.sort(np.concatenate([members, others]))
    candidates = [-math.inf, *(edges[:-1] + edges[1:]) / 2, math.inf]
    return float(max(candidates, key=lambda edge: float((members < edge).mean() - (others < edge).mean())))


if __name__ == "__main__":
    main()
