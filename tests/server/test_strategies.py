"""What every strategy promises, whatever Flower does inside."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainunet.config import StrategyConfig
from brainunet.errors import ConfigError, FederationError
from brainunet.weights import Weights
from brainunet_server.flower.strategies import STRATEGIES, strategy_from
from tests.support.replies import START
from tests.support.steps import COMPARING, REMEMBERING, SIZE, around, made_of, mean_of, stepped, strategy

AVERAGING = ("fedavg", "fedprox", "fedavgm")  # one site alone gets its own weights back
FEDERATION = {"malicious_sites": 1}  # of seven sites

values = st.floats(-1e3, 1e3, width=32)
few_examples = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _outside_any_task_of_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)


# --- every strategy ---------------------------------------------------------------------------------------------------


def test_the_two_families_are_told_apart() -> None:
    assert tuple(name for name in STRATEGIES if strategy(name).needs_every_reply) == COMPARING


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_order_of_the_sites_does_not_matter(name: str) -> None:
    random = np.random.default_rng(5)
    sites = around(START, random)
    for _ in range(5):
        shuffled = [sites[number] for number in random.permutation(len(sites))]
        one, other = (stepped(strategy(name, **FEDERATION), 1, START, order).flat() for order in (sites, shuffled))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
        if name in COMPARING:
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", ["fedavg", "fedprox", *COMPARING])
@given(
    sites=st.lists(st.tuples(st.lists(values, min_size=5, max_size=5), st.integers(1, 500)), min_size=5, max_size=7),
    random=st.randoms(),
)
@few_examples
def test_whatever_the_sites_send_the_step_ends_among_them_in_any_order(
    name: str, sites: list[tuple[list[float], int]], random: object
) -> None:
    given_sites = [(made_of(numbers), float(cases)) for numbers, cases in sites]
    shuffled = list(given_sites)
    random.shuffle(shuffled)  # type: ignore[attr-defined] # a random.Random

    one, other = (stepped(strategy(name, **FEDERATION), 1, START, order).flat() for order in (given_sites, shuffled))

    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-3)
    everyone = np.stack([weights.flat() for weights, _ in given_sites])
    assert (one <= everyone.max(axis=0) + 1e-3).all()
    assert (one >= everyone.min(axis=0) - 1e-3).all()


@pytest.mark.parametrize("name", AVERAGING)
@given(numbers=st.lists(values, min_size=5, max_size=5), cases=st.integers(1, 10_000_000))
@few_examples
def test_one_site_alone_gets_its_own_weights_back(name: str, numbers: list[float], cases: int) -> None:
    mean, total = mean_of([(made_of(numbers), cases)])

    after = strategy(name).step(1, START, mean, total)

    assert after.layout == START.layout
    assert {array.dtype for array in after.arrays} == {np.dtype(np.float32)}
    np.testing.assert_allclose(after.flat(), np.array(numbers, np.float32), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", STRATEGIES)
def test_when_all_sites_agree_on_no_change_the_model_stays(name: str) -> None:
    after = stepped(strategy(name, **FEDERATION), 1, START, [(START, 10.0)] * 7)

    np.testing.assert_allclose(after.flat(), START.flat(), rtol=1e-6)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_can_be_asked_round_after_round_and_repeats(name: str) -> None:
    made = []
    for _ in range(2):
        taken, current, random = strategy(name, **FEDERATION), START, np.random.default_rng(1)
        for exchange in (1, 2, 3):
            current = stepped(taken, exchange, current, around(current, random))
        assert {array.dtype for array in current.arrays} == {np.dtype(np.float32)}
        assert current.layout == START.layout
        made.append(current.digest)

    assert made[0] == made[1]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_leaves_what_it_was_given_as_it_was(name: str) -> None:
    sites = around(START, np.random.default_rng(2))
    before = [weights.flat().tobytes() for weights, _ in sites], START.flat().tobytes()

    taken = strategy(name, **FEDERATION)
    for exchange in (1, 2):
        stepped(taken, exchange, START, sites)

    assert ([weights.flat().tobytes() for weights, _ in sites], START.flat().tobytes()) == before


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_model_of_another_layout_is_refused(name: str) -> None:
    other = Weights.of({"kernel": np.zeros(4), "bias": np.zeros(1)})  # as many values, of other shapes

    with pytest.raises(FederationError, match=r"strategy \w+: .*but expected"):
        stepped(strategy(name, **FEDERATION), 1, START, [(other, 1.0)] * 7)


@pytest.mark.parametrize("name", [*REMEMBERING, "multikrum"])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_a_step_that_leaves_the_finite_is_never_a_model(name: str) -> None:
    here, far = made_of([-3e38] * 5), made_of([3e38] * 5)

    with pytest.raises(FederationError, match=rf"round 1: {name} made a model with values that are not finite\. Lower"):
        stepped(strategy(name, **FEDERATION), 1, here, [(far, 1.0)] * 7)


# --- restart ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("last", [0, 1, 3])
def test_a_run_taken_up_after_any_round_goes_on_equal_to_the_bit(name: str, last: int) -> None:
    def run(ends_at: Sequence[int]) -> str:
        taken, current, random = strategy(name, **FEDERATION), START, np.random.default_rng(7)
        for exchange in range(1, 7):
            current = stepped(taken, exchange, current, around(current, random))
            if exchange in ends_at:
                state = taken.state()
                taken = strategy(name, **FEDERATION)  # all that the process held is gone
                if state is not None:
                    taken.restore(Weights.from_flat(state.layout, state.flat()))
        return current.digest

    assert run([]) == run(range(last)) == run([last])


@pytest.mark.parametrize("name", STRATEGIES)
def test_only_strategies_that_remember_have_a_state_and_it_is_empty_before_a_step(name: str) -> None:
    taken = strategy(name)
    before = taken.state()
    assert (before is not None) == (name in REMEMBERING)

    stepped(taken, 1, START, around(START, np.random.default_rng(0)))

    kept = taken.state()
    if before is None:
        assert kept is None
    else:
        assert kept is not None
        assert (before.names, {array.shape for array in kept.arrays}) == ((), {(SIZE,)})
        assert kept.digest == Weights.from_flat(kept.layout, kept.flat()).digest  # float32, so that a file holds all of it
        taken.restore(before)  # and the strategy is as new
        state = taken.state()
        assert state is not None
        assert state.names == ()


def test_without_momentum_fedavgm_has_nothing_to_remember() -> None:
    taken = strategy("fedavgm", momentum=0.0, server_learning_rate=0.5)

    after = taken.step(1, made_of([0.0] * 5), made_of([1.0] * 5), cases=1)

    assert after.flat().tolist() == [0.5] * 5
    assert taken.state() is None


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(
    "state",
    [
        Weights.of({"m_t": np.zeros(5)}),
        Weights.of({"v_t": np.zeros(5), "m_t": np.zeros(5)}),
        Weights.of({"m_t": np.zeros(5), "v_t": np.zeros(4)}),
        Weights.of({"m_t": np.zeros((5, 1)), "v_t": np.zeros((5, 1))}),
        Weights.of({"momentum": np.full(5, np.nan)}),
        Weights.of({"momentum": np.zeros((1, 5))}),
        Weights.of({"momentum": np.zeros(5), "more": np.zeros(5)}),
    ],
)
def test_a_state_of_another_strategy_or_a_damaged_one_is_refused(name: str, state: Weights) -> None:
    with pytest.raises(ConfigError, match=rf"state of strategy {name}: arrays .*Resume the run with the strategy"):
        strategy(name).restore(state)


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_memory_of_another_model_is_refused(name: str) -> None:
    taken = strategy(name)
    arrays = {"momentum": np.zeros(1)} if name == "fedavgm" else {"m_t": np.zeros(1), "v_t": np.zeros(1)}
    taken.restore(Weights.of(arrays))  # one value, which numpy would stretch over any model

    with pytest.raises(FederationError, match="a memory of 1, but expected 5 values, as the model has"):
        taken.step(1, START, START, cases=1)


# --- sites and memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "numbers", "least"),
    [
        ("multikrum", {"malicious_sites": 0}, 3),
        ("multikrum", {"malicious_sites": 2}, 7),
        ("fedtrimmedavg", {"trimmed_share": 0.2}, 5),
        ("fedtrimmedavg", {"trimmed_share": 0.49}, 3),
        ("fedtrimmedavg", {"trimmed_share": 1 / 49}, 50),  # 49 of them are 0.999... of a site
    ],
)
def test_too_few_sites_are_refused_before_any_round_and_in_each(name: str, numbers: dict[str, float], least: int) -> None:
    config = StrategyConfig.model_validate({"name": name} | numbers)
    sites = around(START, np.random.default_rng(0), sites=least)

    with pytest.raises(
        ConfigError, match=rf"{name} with rounds of {least - 1} sites, but expected at least {least} with .*Raise"
    ):
        strategy_from(config, sites=least - 1)
    with pytest.raises(FederationError, match=rf"round 4: {least - 1} sites' models for {name}, but expected at least {least}"):
        strategy_from(config).step_from_all(4, START, sites[:-1])

    assert strategy_from(config, sites=least).step_from_all(4, START, sites).is_finite()


def test_a_share_too_small_to_ever_cut_anything_off_is_not_waited_for() -> None:
    with pytest.raises(ConfigError, match=r"at least 100000\d "):
        strategy_from(StrategyConfig(name="fedtrimmedavg", trimmed_share=5e-324), sites=20)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in COMPARING])
def test_averaging_and_adaptive_strategies_take_any_number_of_sites_and_every_reply_too(name: str) -> None:
    config = StrategyConfig(name=name)
    sites = around(START, np.random.default_rng(0), sites=3)

    from_all = strategy_from(config, sites=1).step_from_all(1, START, sites)

    assert from_all.digest == strategy_from(config).step(1, START, *mean_of(sites)).digest


@pytest.mark.parametrize("name", COMPARING)
def test_a_strategy_that_compares_refuses_a_mean(name: str) -> None:
    with pytest.raises(FederationError, match=f"strategy {name}: the mean of the sites' models, but expected each of them"):
        strategy(name).step(1, START, START, cases=1)


def test_what_a_strategy_will_hold_in_memory_is_said_in_a_sentence() -> None:
    notes = {name: strategy(name).memory_note(20, 91_400_000) for name in STRATEGIES}

    assert {name for name, note in notes.items() if note is None} == set(STRATEGIES) - set(COMPARING)
    assert notes["fedmedian"] == "fedmedian holds every reply at once: 20 x 91 MB = 1.8 GB"
    assert notes["multikrum"] == (
        "multikrum holds every reply at once, 4 times over while it compares: 4 x 20 x 91 MB = 7.3 GB"
    )
    assert strategy("fedtrimmedavg").memory_note(2, 400_000) == "fedtrimmedavg holds every reply at once: 2 x 0.4 MB = 0.8 MB"


@pytest.mark.parametrize(("name", "most"), [("fedmedian", 1.4), ("fedtrimmedavg", 1.4), ("multikrum", 4.1)])
def test_a_comparison_holds_no_more_than_its_note_says(name: str, most: float) -> None:
    random = np.random.default_rng(0)
    current = Weights.of({"w": np.zeros((2, 500_000), np.float32)})
    tracemalloc.start()
    try:
        models = [(Weights.of({"w": random.random((2, 500_000), np.float32)}), 1.0) for _ in range(10)]
        strategy(name, malicious_sites=1).step_from_all(1, current, models)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak <= most * 10 * current.n_bytes


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.name: fedavgg is not known \(did you mean fedavgm?\?\)"):
        strategy("fedavgg")
