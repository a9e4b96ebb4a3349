"""What noisy steps cost: Renyi differential privacy of the sampled Gaussian mechanism, added up and turned into epsilon.

I. Mironov, K. Talwar, L. Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism", 2019, arXiv:1908.10530; the
conversion is B. Balle et al., "Hypothesis Testing Interpretations and Renyi Differential Privacy", AISTATS 2020,
arXiv:1905.09982, theorem 21.

The same figures as Opacus' RDP accountant gives (its orders, its sums), and never smaller ones; without torch, so that a
hospital's ledger can be read in a moment.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

Floats: TypeAlias = npt.NDArray[np.float64]

ORDERS: Final[tuple[float, ...]] = (*(1 + x / 10 for x in range(1, 100)), *map(float, range(12, 64)))  # Opacus' own
NEGLIGIBLE: Final = -30.0  # logarithm of the terms of a series that count no more
MOST_TERMS: Final = 2**20
LEAST_NOISE: Final = 1e-4  # less counts as none: its squares leave the range in which sums of them are exact
_UP: Final = 1e-9  # a share by which a figure is raised, so that rounding never makes it smaller than it is


@dataclass(frozen=True)
class Charge:
    """``steps`` steps in which each case takes part with probability ``rate``, under noise of ``noise`` times the clip.

    Attributes:
        noise: standard deviation of the noise over the longest gradient of a case; 0 is no privacy at all.
        rate: 0 to 1.
    """

    noise: float
    rate: float
    steps: int = 1


def epsilon_of(charges: Iterable[Charge], delta: float) -> float:
    """The epsilon of all these steps together, at ``delta``; 0 without any, infinite where a step had no noise.

    >>> round(epsilon_of([Charge(noise=1.1, rate=0.01, steps=1000)], 1e-5), 3)
    1.712
    """
    totals: Counter[tuple[float, float]] = Counter()
    for charge in charges:
        totals[charge.noise, charge.rate] += charge.steps
    spent = {key: steps for key, steps in totals.items() if steps > 0 and key[1] > 0}
    if not spent:
        return 0.0
    orders = np.array(ORDERS)
    rdp = sum((steps * _rdp_of_step(*key) for key, steps in spent.items()), np.zeros(len(ORDERS)))
    epsilons = rdp - (math.log(delta) + np.log(orders)) / (orders - 1) + np.log1p(-1 / orders)
    found = float(np.nanmin(epsilons, initial=math.inf))
    return max(0.0, found + abs(found) * _UP + _UP) if math.isfinite(found) else math.inf


@lru_cache(maxsize=4096)
def _rdp_of_step(noise: float, rate: float) -> Floats:
    """Renyi divergence of one step at each of ORDERS; not to be changed by its callers."""
    if noise < LEAST_NOISE:
        return np.full(len(ORDERS), np.inf)
    if rate == 1:
        return np.array(ORDERS) / (2 * noise**2)
    log = (_log_moment_whole if order.is_integer() else _log_moment for order in ORDERS)
    return np.array([of(rate, noise, order) / (order - 1) for of, order in zip(log, ORDERS, strict=True)])


def _log_moment_whole(rate: float, noise: float, order: float) -> float:
    """log A of a whole order: a finite sum (section 3.3)."""
    i = np.arange(order + 1)
    log_binomial = np.log(special.binom(order, i))
    terms = log_binomial + i * math.log(rate) + (order - i) * math.log1p(-rate) + (i * i - i) / (2 * noise**2)
    return float(special.logsumexp(terms))


def _log_moment(rate: float, noise: float, order: float) -> float:
    """log A of any other order: two series with alternating signs, cut where both terms are negligible (section 3.3)."""
    middle = noise**2 * math.log(1 / rate - 1) + 0.5
    logs: list[Floats] = []
    signs: list[Floats] = []
    start, size = 0, 64
    while start < MOST_TERMS:
        i = np.arange(start, start + size, dtype=np.float64)
        j = order - i
        binomial = special.binom(order, i)
        with np.errstate(divide="ignore"):  # a term of 0
            log_binomial = np.log(np.abs(binomial))
        low = log_binomial + i * math.log(rate) + j * math.log1p(-rate) + (i * i - i) / (2 * noise**2)
        low += special.log_ndtr((middle - i) / noise)
        high = log_binomial + j * math.log(rate) + i * math.log1p(-rate) + (j * j - j) / (2 * noise**2)
        high += special.log_ndtr((j - middle) / noise)
        small = np.flatnonzero(np.maximum(low, high) < NEGLIGIBLE)
        stop = int(small[0]) + 1 if small.size else size
        logs += [low[:stop], high[:stop]]
        signs += [np.sign(binomial[:stop])] * 2
        if small.size:
            break
        start, size = start + size, size * 4
    return float(special.logsumexp(np.concatenate(logs), b=np.concatenate(signs)))
