"""The networks that papers compare with: their authors', as large as the papers say, under our promises."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch

from brainunet.cli import main as brainunet
from brainunet.config import ModelConfig
from brainunet.errors import ConfigError
from brainunet.labels import Modality
from brainunet.model import build, set_activation_checkpointing, set_weights, size_of, weights_of
from brainunet.presets import BASELINES, default_norm
from tests.support.cases import assert_helps
from tests.support.nets import HEAVY, network
from tests.support.pace import first_fast
from tests.support.simulation import run

MILLIONS = {
    "nnunet-plain": 31.2,
    "nnunet-resenc-m": 102.35,
    "nnunet-resenc-l": 102.35,
    "mednext-s": 5.55,
    "mednext-b": 10.51,
    "mednext-m": 17.53,
    "mednext-l": 61.73,
}
installed = pytest.mark.skipif(
    any(find_spec(package) is None for package in BASELINES.values()),
    reason="the baselines' packages are not installed: deploy/set-up-baselines.sh",
)
# every second way to one storage, a head that nothing uses and the encoder inside the decoder would show in these
SMALL = ("nnunet-plain", "mednext-s")


def config(preset: str, **facts: object) -> ModelConfig:
    return ModelConfig.model_validate({"preset": preset, "norm": "instance", **facts})


@installed
@pytest.mark.parametrize("preset", [pytest.param(p, marks=pytest.mark.slow) if p in HEAVY else p for p in BASELINES])
def test_a_baseline_is_as_large_as_its_paper_says(preset: str) -> None:
    size = size_of(config(preset), (64, 64, 64))

    assert size.parameters / 1e6 == pytest.approx(MILLIONS[preset], abs=0.01)


@installed
@pytest.mark.parametrize("preset", SMALL)
def test_its_state_dict_holds_each_number_once(preset: str) -> None:
    with torch.device("meta"):
        made = build(config(preset))

    assert sum(value.numel() for value in made.state_dict().values()) == sum(p.numel() for p in made.parameters())
    assert sorted(made.state_dict()) == sorted(name for name, _ in made.named_parameters())


@installed
@pytest.mark.parametrize("modalities", [3, 4])
def test_it_takes_the_modalities_of_the_configuration(modalities: int) -> None:
    made = network("mednext-s", norm="instance") if modalities == 3 else build(config("mednext-s", modalities=tuple(Modality)))

    with torch.inference_mode():
        assert made.eval()(torch.zeros(1, modalities, 16, 9, 24)).shape == (1, 4, 16, 9, 24)


@installed
@pytest.mark.parametrize("preset", first_fast("mednext-s", "nnunet-plain"))
def test_its_weights_go_out_of_one_and_into_another(preset: str) -> None:
    first, second = network(preset, norm="instance", seed=1), network(preset, norm="instance", seed=2)
    assert weights_of(second).digest != weights_of(first).digest

    set_weights(second, weights_of(first))

    assert weights_of(second).digest == weights_of(first).digest


@installed
def test_it_keeps_its_activations_and_says_so() -> None:
    assert not set_activation_checkpointing(network("mednext-s", norm="instance"), True)


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("preset", BASELINES)
def test_another_norm_than_its_own_is_refused_with_the_right_one(preset: str, norm: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(config(preset, norm=norm))

    assert_helps(raised.value, where="model.norm", found=norm, exit_code=4)
    assert f"instance, which {preset} has built in. Set model.norm to instance" in str(raised.value)


@pytest.mark.parametrize("preset", BASELINES)
def test_without_its_package_it_is_said_what_to_install(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] in BASELINES.values()]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, BASELINES[preset], None)

    with pytest.raises(ConfigError) as raised:
        build(config(preset))

    assert_helps(raised.value, where="model.preset", found=preset, exit_code=4)
    assert "pip install 'brainunet-fl[baselines]'" in str(raised.value)


@installed
def test_the_command_line_takes_a_baseline_s_own_norm_where_none_was_chosen() -> None:
    ended = run(brainunet, "model", "info", "--preset", "nnunet-plain", "--patch", "32", "32", "32")

    assert ended.code == 0, ended.err
    assert "nnunet-plain, instance norm" in ended.out
    assert "31,195,844" in ended.out
    assert default_norm("brainunet-lite") == "group"
