"""The authors' weights give the authors' logits under our names, and the card says what was told of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from brainunet.config import ModelConfig
from brainunet.labels import DEFAULT_MODALITIES, Modality
from brainunet.model import build, load
from brainunet.model.import_official import MODULES, import_official
from brainunet.modelfile import ModelCard, read_model
from tests.support.official import ORDER, State, imported, reference, saved, state
from tests.support.reference_network import ReferenceNetwork, listed, reference_network

__all__ = ["reference", "state"]  # fixtures


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


# --- the same network -------------------------------------------------------------------------------------------------------


def test_the_reference_has_the_authors_keys_and_shapes_and_no_others(state: State) -> None:
    assert {name: tuple(value.shape) for name, value in state.items()} == listed()


def test_the_table_names_every_module_of_ours_and_of_theirs_once() -> None:
    theirs = {key.rpartition(".")[0] for key in listed()}
    with torch.device("meta"):
        made = build(ModelConfig(norm="batch"))
    ours = {name for name, module in made.named_modules() if next(module.children(), None) is None}

    assert set(MODULES) == ours
    assert sorted(MODULES.values()) == sorted(theirs)


@pytest.mark.parametrize("size", [(16, 24, 8), pytest.param((32, 16, 16), marks=pytest.mark.slow)])
def test_an_imported_model_gives_the_reference_s_logits(
    size: tuple[int, int, int], reference: ReferenceNetwork, state: State, tmp_path: Path
) -> None:
    ended = imported(saved(tmp_path / "official.pth", state), *ORDER)
    assert ended.code == 0, ended.err
    image = noise(2, 3, *size)

    with torch.inference_mode():
        torch.testing.assert_close(load(tmp_path / "model.safetensors")(image), reference(image), rtol=1e-4, atol=1e-4)


def test_four_modalities_are_imported_in_the_order_that_was_said(tmp_path: Path) -> None:
    made = reference_network(4)

    ended = imported(saved(tmp_path / "four.pt", made.state_dict()), "--modalities", "flair,T1ce,t1,t2")

    assert ended.code == 0, ended.err
    assert read_model(tmp_path / "model.safetensors")[1].model.modalities == tuple(
        Modality(m) for m in ("t2f", "t1c", "t1n", "t2w")
    )
    image = noise(1, 4, 16, 8, 24)
    with torch.inference_mode():
        torch.testing.assert_close(load(tmp_path / "model.safetensors")(image), made(image), rtol=1e-4, atol=1e-4)


def legacy(path: Path, state: State) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


FORMS: dict[str, Callable[[Path, State], object]] = {
    "bare": lambda path, state: torch.save(state, path),
    "torch's format before 1.6": legacy,
    "safetensors": lambda path, state: safetensors.torch.save_file(state, path),
    "in state_dict": lambda path, state: torch.save({"epoch": 7, "state_dict": state, "optimizer": {"lr": 1e-4}}, path),
    "in model": lambda path, state: torch.save({"model": state, "best": 0.8}, path),
    "of data parallel": lambda path, state: torch.save({f"module.{name}": value for name, value in state.items()}, path),
    "both": lambda path, state: torch.save({"state_dict": {f"module.{name}": v for name, v in state.items()}}, path),
    "of parameters": lambda path, state: torch.save(
        {name: nn.Parameter(v) if v.is_floating_point() else v for name, v in state.items()}, path
    ),
    "in double precision": lambda path, state: torch.save(
        {name: v.double() if v.is_floating_point() else v for name, v in state.items()}, path
    ),
    "without counters": lambda path, state: torch.save(
        {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}, path
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_file_gives_the_same_weights(form: str, state: State, tmp_path: Path) -> None:
    FORMS[form](tmp_path / "file", state)

    weights, config = import_official(tmp_path / "file", DEFAULT_MODALITIES)

    assert (config.preset, config.norm, config.modalities) == ("brainunet", "batch", DEFAULT_MODALITIES)
    assert len(weights.names) == sum(value.is_floating_point() for value in state.values())
    for name, array in weights.as_dict().items():
        module, _, leaf = name.rpartition(".")
        assert torch.equal(torch.from_numpy(array), state[f"{MODULES[module]}.{leaf}"]), name


# --- the card ---------------------------------------------------------------------------------------------------------------


def card_of(folder: Path) -> ModelCard:
    return read_model(folder / "model.safetensors")[1]


def test_the_card_says_what_was_said_and_what_a_federation_must_know(state: State, tmp_path: Path) -> None:
    words = ("--title", "Official", "--provenance", "by mail", "--notes", "fold 3", "--trained-on", "brats2021")

    ended = imported(saved(tmp_path / "official.pth", state), *ORDER, *words)

    card = card_of(tmp_path)
    assert ended.code == 0, ended.err
    assert (card.title, card.provenance, card.trained_on) == ("Official", "by mail", "real cases")
    assert card.notes.startswith("fold 3 Trained on: BraTS 2021.") or card.notes.startswith("fold 3. Trained on: BraTS 2021.")
    assert "can't be trained under differential privacy" in card.notes
    assert "strategy.local = norm" in card.notes
    assert card.weights_sha256 in ended.out


def test_what_nobody_said_is_not_known(state: State, tmp_path: Path) -> None:
    assert imported(saved(tmp_path / "official.pth", state), *ORDER).code == 0

    card = card_of(tmp_path)
    assert card.trained_on == "unknown"
    digest = hashlib.sha256((tmp_path / "official.pth").read_bytes()).hexdigest()
    assert f"official.pth (SHA-256 {digest})" in card.provenance


def test_json_is_the_card_and_nothing_else(state: State, tmp_path: Path) -> None:
    ended = imported(saved(tmp_path / "official.pth", state), *ORDER, "--json")

    facts = json.loads(ended.out)
    assert facts["parameters"] == 22_836_333
    assert ModelCard.model_validate(facts["card"]) == card_of(tmp_path)


def test_a_safetensors_file_may_tell_its_modalities_itself(state: State, tmp_path: Path) -> None:
    file = tmp_path / "official.safetensors"
    safetensors.torch.save_file(state, file, metadata={"modalities": "t2f,t1c,t2w"})

    assert imported(file).code == 0
    assert card_of(tmp_path).model.modalities == (Modality.T2F, Modality.T1C, Modality.T2W)
    contradicted = imported(file, *ORDER, "--overwrite")
    assert contradicted.code == 2
    assert "t2f,t1c,t2w, as the file itself says" in contradicted.err


# --- what makes no sense ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--modalities: not given, but expected the input channels in their order"),
        (["--modalities", "t1c,t2w"], "a network of 3 input channels, but expected 2 for --modalities t1c,t2w"),
        (["--modalities", "t1c,t2w,t2f,t1n"], "a network of 3 input channels, but expected 4"),
        (["--modalities", "t1c,t2w,t2w"], "each modality once"),
        (["--modalities", "t1c,t2w,t2ff"], "'t2ff' is not known (did you mean t2f?)"),
        ([*ORDER, "--trained-on", "brats21"], "did you mean brats2021?"),
    ],
)
def test_a_command_line_that_does_not_fit_the_file_is_refused(
    arguments: list[str], said: str, state: State, tmp_path: Path
) -> None:
    ended = imported(saved(tmp_path / "official.pth", state), *arguments)

    assert ended.code in (2, 4)
    assert said in ended.err
    assert not (tmp_path / "model.safetensors").exists()


def test_an_earlier_model_stays_unless_overwriting_was_asked_for(state: State, tmp_path: Path) -> None:
    file = saved(tmp_path / "official.pth", state)
    (tmp_path / "model.safetensors").write_text("mine")

    assert "say --overwrite" in imported(file, *ORDER).err
    assert (tmp_path / "model.safetensors").read_text() == "mine"
    assert imported(file, *ORDER, "--overwrite").code == 0
