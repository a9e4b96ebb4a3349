"""Weights are names and arrays in a fixed order, and their mean does not depend on who replied first."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from brainunet.errors import FederationError
from brainunet.weights import FloatArray, Layout, WeightedMean, Weights

shapes = st.lists(arrays.array_shapes(min_dims=0, max_dims=4, max_side=3), max_size=6)
floats = st.floats(-1e6, 1e6, width=32)


@st.composite
def some_weights(draw: st.DrawFn) -> Weights:
    names = draw(st.lists(st.text(max_size=12), unique=True, max_size=5))
    return Weights.of(
        {
            name: draw(arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=3, max_side=3), elements=floats))
            for name in names
        }
    )


def numbers(*values: float) -> Weights:
    return Weights.of({"w": np.array(values[:-1]), "b": np.array(values[-1])})


def random_weights(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return Weights.of({"w": rng.normal(size=(4, 3)), "b": rng.normal(size=5) * 1e-3})


def same_bits(a: Weights, b: Weights) -> bool:
    return a.layout == b.layout and all(x.tobytes() == y.tobytes() for x, y in zip(a.arrays, b.arrays, strict=True))


@given(some_weights())
def test_flat_and_its_layout_are_the_weights(weights: Weights) -> None:
    flat = weights.flat()

    assert flat.shape == (sum(array.size for array in weights.arrays),)
    back = Weights.from_flat(weights.layout, flat)
    assert same_bits(back, weights)
    assert back.digest == weights.digest


def test_flat_goes_through_the_arrays_in_order_the_last_axis_fastest() -> None:
    weights = Weights.of({"z": [[1, 2], [3, 4]], "a": 5, "m": [6]})

    assert weights.flat().tolist() == [1, 2, 3, 4, 5, 6]
    assert weights.layout == (("z", (2, 2)), ("a", ()), ("m", (1,)))
    assert weights.n_bytes == 24


def test_flat_is_a_copy_and_what_comes_back_is_a_view() -> None:
    weights = numbers(1, 2, 3)
    flat = weights.flat()
    flat[0] = 9

    assert weights["w"].tolist() == [1, 2]
    assert np.shares_memory(Weights.from_flat(weights.layout, flat).arrays[0], flat)


@pytest.mark.parametrize(
    ("layout", "values"),
    [
        ((("w", (2,)),), np.zeros(3)),
        ((("w", (4,)),), np.zeros(3)),
        ((), np.zeros(1)),
        ((("w", (-3,)),), np.zeros(3)),
        ((("w", (-1, -3)),), np.zeros(3)),
        ((("w", (3,)), ("v", (-1, 2)), ("u", (2,))), np.zeros(3)),
        ((("w", (0,)), ("v", (3,))), np.zeros(3)),
        ((("w", (0, 2**70)),), np.zeros(0)),
        ((("w", (0, 2**31, 2**31, 2**31)),), np.zeros(0)),
        ((("w", (2**64 + 3,)),), np.zeros(3)),
        ((("w", (10**3000, 10**3000)),), np.zeros(3)),
        ((("w", (3, 1)),), np.zeros((3, 1))),
        ((("w", ()),), np.zeros(())),
        ((("w", (1,)), ("w", (2,))), np.zeros(3)),
    ],
)
def test_a_layout_that_does_not_fit_its_values_is_refused(layout: Layout, values: npt.NDArray[np.float64]) -> None:
    with pytest.raises(FederationError) as raised:
        Weights.from_flat(layout, values.astype(np.float32))

    assert raised.value.exit_code == 6
    assert len(str(raised.value)) < 200


# --- digest -----------------------------------------------------------------------------------------------------------------

ABCD = np.frombuffer(b"abcd", np.float32)


@pytest.mark.parametrize(
    "other",
    [
        {"w": [1.0, 2.0], "b": 4.0},
        {"b": 3.0, "w": [1.0, 2.0]},
        {"w": [[1.0, 2.0]], "b": 3.0},
        {"w": [1.0, 2.0], "c": 3.0},
        {"w": [1.0, 2.0], "b": [3.0]},
        {"w": [1.0, 2.0]},
        {"w": [-1.0, 2.0], "b": 3.0},
    ],
)
def test_another_value_name_shape_or_order_is_another_digest(other: dict[str, npt.ArrayLike]) -> None:
    assert Weights.of(other).digest != numbers(1, 2, 3).digest
    assert Weights.of({"w": [1.0, 2.0], "b": 3.0}).digest == numbers(1, 2, 3).digest


def test_a_name_that_looks_like_shape_and_values_does_not_give_their_digest() -> None:
    two = Weights.of({"a": ABCD, "b": ABCD})
    one = Weights.of({"a(1,)abcdb": ABCD})

    assert two.digest != one.digest


def test_the_digest_goes_by_values_not_by_their_place_in_memory() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)

    assert Weights.of({"w": np.asfortranarray(array)}).digest == Weights.of({"w": array}).digest
    assert Weights.of({"w": array.astype(">f4")}).digest == Weights.of({"w": array}).digest


# --- arithmetic --------------------------------------------------------------------------------------------------------------


def test_a_difference_added_again_gives_the_later_weights() -> None:
    before, after = numbers(1, 2, 3), numbers(1.5, 2, 0)

    delta = after.minus(before)

    assert (delta["w"].tolist(), delta["b"].tolist()) == ([0.5, 0], -3)
    assert same_bits(before.plus(delta), after)
    assert delta.norm == pytest.approx(math.sqrt(0.25 + 9))


def test_the_norm_of_nothing_is_zero_and_that_of_large_values_does_not_overflow() -> None:
    assert Weights.of({}).norm == 0
    assert Weights.of({"w": [3e38, 3e38]}).norm == pytest.approx(3e38 * math.sqrt(2))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_no_number_shows(bad: float) -> None:
    assert numbers(1, 2, 3).is_finite()
    assert not numbers(1, bad, 3).is_finite()
    assert not math.isfinite(numbers(1, bad, 3).norm)


OTHER_LAYOUTS = [numbers(1, 2), Weights.of({"w": [1.0, 2.0]}), Weights.of({"b": 3.0, "w": [1.0, 2.0]}), Weights.of({})]


@pytest.mark.parametrize("other", OTHER_LAYOUTS)
def test_weights_of_another_layout_do_not_add_up(other: Weights) -> None:
    weights = numbers(1, 2, 3)
    mean = WeightedMean()
    mean.fold(weights, weight=1)

    for combine in (weights.plus, weights.minus, lambda w: mean.fold(w, weight=1)):
        with pytest.raises(FederationError, match="arrays of another layout"):
            combine(other)
    assert same_bits(mean.result(), weights)


# --- the mean -----------------------------------------------------------------------------------------------------------------


def mean_of(replies: list[tuple[Weights, float]]) -> Weights:
    mean = WeightedMean()
    for weights, weight in replies:
        mean.fold(weights, weight=weight)
    return mean.result()


def test_each_reply_counts_by_its_share() -> None:
    mean = mean_of([(numbers(0, 10, 1), 3), (numbers(4, 10, 5), 1)])

    assert (mean["w"].tolist(), mean["b"].tolist()) == ([1, 10], 2)


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0.1, 1e4)), min_size=1, max_size=8), st.randoms())
def test_the_mean_does_not_depend_on_the_order_of_the_replies(drawn: list[tuple[int, float]], random: object) -> None:
    replies = [(random_weights(seed), weight) for seed, weight in drawn]

    forward, backward = mean_of(replies), mean_of(replies[::-1])

    assert forward.flat() == pytest.approx(backward.flat(), rel=1e-6, abs=1e-9)


@given(some_weights(), st.floats(1e-3, 1e7))
def test_one_reply_gives_itself_back_to_the_last_bit(weights: Weights, weight: float) -> None:
    mean = mean_of([(weights, weight)])

    assert mean.layout == weights.layout
    assert np.array_equal(mean.flat(), weights.flat())


@given(st.integers(1, 20), st.floats(0.1, 100))
def test_equal_replies_give_themselves_back(n: int, weight: float) -> None:
    assert mean_of([(random_weights(1), weight)] * n).flat() == pytest.approx(random_weights(1).flat(), rel=1e-6)


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_a_share_that_is_not_positive_is_refused(weight: float) -> None:
    with pytest.raises(FederationError, match="a share of"):
        WeightedMean().fold(numbers(1, 2, 3), weight=weight)


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(FederationError, match="nothing to average"):
        WeightedMean().result()


def test_folding_leaves_the_reply_as_it_was() -> None:
    reply: FloatArray = np.ones(3, np.float32)
    mean = WeightedMean()
    for _ in range(3):
        mean.fold(Weights.of({"w": reply}), weight=2)

    assert reply.tolist() == [1, 1, 1]
    assert mean.total == 6
