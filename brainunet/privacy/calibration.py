"""From a wish (this epsilon after so many rounds) to the noise that a site of so many cases needs for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from brainunet.errors import PrivacyError
from brainunet.privacy.accounting import Charge, epsilon_of

MOST_NOISE: Final = 1e4
MOST_STEPS: Final = 10**7  # of which a budget is asked how many it bears
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

    most = max(1, MOST_STEPS // max(1, a_round.steps))
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
