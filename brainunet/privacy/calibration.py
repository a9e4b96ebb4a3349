"""From a wish (this epsilon after so many rounds) to the noise that a site of so many cases needs for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from brainunet.errors import PrivacyError
from brainunet.privacy.accounting import Charge, epsilon_of

MOST_NOISE: Final = 1e4
MOST_STEPS: Final = 10**7  # of which a budget is asked how many it bears
ROUNDING: Final = 1e-9  # a share by which sums of the same steps may differ
EXACT: Final = 1e-3  # a share by which the noise may be larger than it must


def noise_for(epsilon: float, delta: float, *, rate: float, steps: int) -> float:
    """The smallest noise with which ``steps`` steps cost at most ``epsilon`` at ``delta`` (0.1 % more at most).

    >>> noise = noise_for(8.0, 1e-3, rate=0.1, steps=400)
    >>> 7.9 < epsilon_of([Charge(noise, 0.1, 400)], 1e-3) <= 8.0
    True

    Raises:
        PrivacyError: no noise is enough for so small an epsilon.
    """

    def costs(noise: float) -> float:
        return epsilon_of([Charge(noise, rate, steps)], delta)

    low, high = 0.0, 1.0
    while costs(high) > epsilon:
        low, high = high, 2 * high
        if high > MOST_NOISE:
            raise PrivacyError(
                "privacy.epsilon",
                found=f"{epsilon:g} for {steps} steps at delta {delta:g}",
                expected="a budget that some noise can keep",
                remedy="raise epsilon, or ask for fewer rounds or steps",
            )
    while high - low > EXACT * high:
        middle = (low + high) / 2
        low, high = (low, middle) if costs(middle) <= epsilon else (middle, high)
    return high


def rounds_left(spent: Iterable[Charge], a_round: Charge, epsilon: float, delta: float) -> int:
    """How many more such rounds fit into a budget of ``epsilon`` beside what was spent; 0 if not one does.

    >>> a_round = Charge(noise=2.0, rate=0.2, steps=10)
    >>> left = rounds_left([], a_round, 4.0, 1e-3)
    >>> [epsilon_of([Charge(2.0, 0.2, 10 * n)], 1e-3) <= 4.0 for n in (left, left + 1)]
    [True, False]
    """
    before = tuple(spent)

    def fits(rounds: int) -> bool:
        return epsilon_of([*before, Charge(a_round.noise, a_round.rate, a_round.steps * rounds)], delta) <= epsilon

    return _last_that(fits, MOST_STEPS // max(1, a_round.steps))


def steps_to(epsilon: float, spent: Iterable[Charge], step: Charge, delta: float) -> int:
    """How many such steps beside what was spent cost ``epsilon`` at least (but for rounding); 0 if it costs that already.

    >>> steps = steps_to(4.0, [], Charge(noise=2.0, rate=0.2), 1e-3)
    >>> [epsilon_of([Charge(2.0, 0.2, n)], 1e-3) >= 4.0 for n in (steps - 1, steps)]
    [False, True]
    """
    before, enough = tuple(spent), epsilon * (1 - ROUNDING)

    def falls_short(steps: int) -> bool:
        return epsilon_of([*before, Charge(step.noise, step.rate, steps)], delta) < enough

    return _last_that(falls_short, MOST_STEPS) + 1 if falls_short(0) else 0


def _last_that(holds: Callable[[int], bool], most: int) -> int:
    """The largest number for which it holds, of those up to ``most`` at least; 0 if not even 1 does."""
    low, high = 0, 1
    while high <= max(1, most) and holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
