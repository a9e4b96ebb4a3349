"""The settings of a simulation: what is refused, and with which words."""

from __future__ import annotations

import pytest

from brainunet.errors import ConfigError
from brainunet.settings import load, sha256_of
from brainunet_sim.scenario import SimulationConfig


def test_nothing_said_is_a_simulation_of_the_small_network_that_anyone_can_run() -> None:
    config = load(SimulationConfig)

    assert (config.model.preset, config.rounds, config.partition.name, config.strategy.name) == (
        "brainunet-nano",
        5,
        "iid",
        "fedavg",
    )
    assert config.phantom is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.stepss=3", r"train\.stepss is not a known setting \(did you mean steps\?\)"),
        ("partition.alhpa=1", r"did you mean alpha\?"),
        ("phantom.sytle=ssa", r"did you mean style\?"),
        ("ruonds=3", r"ruonds is not a known setting \(did you mean rounds\?\)"),
        ("rounds=0", r"rounds: .*at least 1 \(found 0\)"),
        ("rounds=many", r"rounds: .*whole number.*found 'many'"),
        ("sites=0", r"sites: "),
        ("seed=-1", r"seed: .*at least 0"),
        ("seed=9223372036854775808", r"seed: .*less than 9223372036854775808"),
        ("partition.alpha=0", r"partition\.alpha: .*more than 0"),
        ("partition.alpha=inf", r"partition\.alpha: "),
        ("partition.alpha=nan", r"partition\.alpha: "),
        ("phantom.shape=[16,48,48]", r"phantom\.shape\.0: .*at least 32"),
        ("phantom.style=t1", r"phantom\.style: .*'gli' or 'ssa'"),
        ("baseline=global", r"baseline: .*'none' or 'local'"),
        ("train.patch=[20,16,16]", r"train\.patch\.0: .*multiple of 8"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(SimulationConfig, overrides=[setting])


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        load(SimulationConfig, overrides=["rounds=0", "train.stepss=3", "baseline=global"])

    assert all(word in str(refused.value) for word in ("rounds", "train.stepss", "baseline"))


def test_the_digest_tells_any_two_settings_apart() -> None:
    configs = [load(SimulationConfig, overrides=o) for o in ([], ["seed=1"], ["partition.alpha=1"], ["phantom.seed=1"])]

    assert len({sha256_of(config) for config in configs}) == len(configs)
