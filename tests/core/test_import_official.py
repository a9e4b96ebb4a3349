"""The authors' weights give the authors' logits under our names, and nothing else passes for them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from brainunet.cli import main as brainunet
from brainunet.config import ModelConfig
from brainunet.errors import ConfigError
from brainunet.labels import DEFAULT_MODALITIES, Modality
from brainunet.model import build, load
from brainunet.model.import_official import MODULES, import_official
from brainunet.modelfile import ModelCard, read_model
from tests.support.reference_network import ReferenceNetwork, listed, reference_network
from tests.support.simulation import Ended, run

ORDER = ("--modalities", "t1c,t2w,t2f")
State = dict[str, Any]


@pytest.fixture(scope="module")
def reference() -> ReferenceNetwork:
    return reference_network()


@pytest.fixture(scope="module")
def state(reference: ReferenceNetwork) -> State:
    return dict(reference.state_dict())


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def imported(file: Path, *arguments: str | Path) -> Ended:
    return run(brainunet, "import", file, "-o", file.with_name("model.safetensors"), *arguments)


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


@pytest.mark.parametrize("size", [(16, 24, 8), (32, 16, 16)])
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


# --- other networks and broken numbers --------------------------------------------------------------------------------------


def shorn(state: State) -> State:
    return {name: value for name, value in state.items() if name != "att2.psi.0.bias"}


CHANGES: dict[str, tuple[Callable[[State], object], str]] = {
    "a key is missing": (shorn, "no att2.psi.0.bias, but expected the 183 keys"),
    "a key is unknown": (lambda s: {**s, "head.w": s["out_conv.bias"]}, "an unknown key 'head.w'"),
    "a key is misspelt": (
        lambda s: {**shorn(s), "att2.psi.0.biass": s["out_conv.bias"]},
        "no att2.psi.0.bias; an unknown key 'att2.psi.0.biass' (did you mean att2.psi.0.bias?)",
    ),
    "a shape is wrong": (
        lambda s: {**s, "down1.residual.weight": s["down1.residual.weight"][:, :32]},
        "down1.residual.weight of shape 128x32x1x1x1 (float32), but expected 128x64x1x1x1 (float32)",
    ),
    "a small file of a huge array": (
        lambda s: {**s, "down1.residual.weight": torch.zeros(1).expand(10**6, 10**6)},
        "down1.residual.weight of shape 1000000x1000000",
    ),
    "integers for weights": (
        lambda s: {**s, "out_conv.bias": torch.ones(4, dtype=torch.int64)},
        "out_conv.bias of shape 4 (int64)",
    ),
    "a sparse array": (lambda s: {**s, "out_conv.bias": torch.ones(4).to_sparse()}, "out_conv.bias of shape 4 (sparse_coo"),
    "NaN": (lambda s: {**s, "up2.bias": s["up2.bias"] * torch.nan}, "values of up2.bias that are NaN or infinite"),
    "infinity": (lambda s: {**s, "up2.bias": s["up2.bias"] / 0}, "values of up2.bias that are NaN or infinite"),
    "overflow in float32": (lambda s: {**s, "up2.bias": s["up2.bias"].double() + 1e300}, "values of up2.bias that are NaN"),
    "a negative variance": (
        lambda s: {**s, "att1.psi.1.running_var": -s["att1.psi.1.running_var"]},
        "a negative variance in att1.psi.1.running_var",
    ),
    "two input channels": (
        lambda s: {**s, "in_conv.double_conv.0.weight": s["in_conv.double_conv.0.weight"][:, :2]},
        "in_conv.double_conv.0.weight for 2 input channels, but expected 3 or 4",
    ),
    "another network": (
        lambda s: {"fc.weight": s["out_conv.bias"], "fc.bias": s["out_conv.bias"]},
        "2 arrays, none of this network",
    ),
    "no arrays": (lambda s: {}, "no arrays"),
    "a list": (lambda s: [1, 2], "a list, but expected a state dict"),
    "one tensor": (lambda s: s["out_conv.bias"], "a Tensor"),
    "other things among the arrays": (lambda s: {**s, "epoch": 3}, 'a int under "epoch"'),
    "names that are no text": (lambda s: {1: s["out_conv.bias"]}, 'a Tensor under "1"'),
    "nothing under state_dict": (lambda s: {"state_dict": 3}, 'a int under "state_dict"'),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_wrong_file_is_refused_by_the_name_of_its_first_wrong_key(change: str, state: State, tmp_path: Path) -> None:
    make, said = CHANGES[change]

    ended = imported(saved(tmp_path / "wrong.pth", make(state)), *ORDER)

    assert ended.code == 4
    assert said in ended.err
    assert ended.err.startswith("error: wrong.pth: ")
    assert "Traceback" not in ended.err
    assert not (tmp_path / "model.safetensors").exists()


# --- damaged and hostile files ----------------------------------------------------------------------------------------------


class Evil:
    """A pickle that makes a file when it is opened without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def deflated(path: Path, state: State) -> None:
    torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def flipped(path: Path, state: State) -> None:
    torch.save(state, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def cut(path: Path, state: State) -> None:
    torch.save(state, path)
    os.truncate(path, path.stat().st_size - 5000)


DAMAGE: dict[str, tuple[Callable[[Path, State], object], str]] = {
    "0 bytes": (lambda path, state: path.write_bytes(b""), "0 bytes"),
    "nothing there": (lambda path, state: None, "No such file"),
    "a folder": (lambda path, state: path.mkdir(), "a folder"),
    "text": (lambda path, state: path.write_text("<html>not found</html>"), "a file of neither kind"),
    "one byte": (lambda path, state: path.write_bytes(b"P"), "a file of neither kind"),
    "cut off": (cut, "damaged"),
    "one byte of a weight changed": (flipped, "is damaged"),
    "a packed archive": (deflated, "a packed archive"),
    "an empty archive": (lambda path, state: zipfile.ZipFile(path, "w").writestr("x", ""), "damaged"),
    "a pickle cut off": (lambda path, state: path.write_bytes(pickle.dumps({"a": 1})[:-3]), "damaged"),
    "a pickle of nonsense": (lambda path, state: path.write_bytes(b"\x80\x02" + bytes(range(1, 200))), "damaged"),
    "safetensors cut off": (
        lambda path, state: path.write_bytes(safetensors.torch.save(state)[:-100]),
        "damaged or no safetensors",
    ),
    "safetensors of nonsense": (lambda path, state: path.write_bytes(b"\x10" + bytes(7) + b"{" + bytes(50)), "damaged or no"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_in_words(damage: str, state: State, tmp_path: Path) -> None:
    make, said = DAMAGE[damage]
    make(tmp_path / "wrong.pth", state)

    ended = imported(tmp_path / "wrong.pth", *ORDER)

    assert ended.code == 4, ended.err
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_a_file_larger_than_a_model_may_be_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "huge.pth").open("wb") as file:
        file.truncate(3_000_000_000)

    assert "3000000000 bytes, more than 2000000000" in imported(tmp_path / "huge.pth", *ORDER).err


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["alone", "in the state dict", "beside it"])
def test_a_pickle_with_code_is_refused_and_its_code_not_run(zipped: bool, place: str, state: State, tmp_path: Path) -> None:
    evil = Evil(tmp_path / "owned")
    content = {"alone": evil, "in the state dict": {**state, "x": evil}, "beside it": {"state_dict": state, "x": evil}}[place]
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)

    ended = imported(tmp_path / "evil.pth", *ORDER)

    assert ended.code == 4
    assert "would run or make" in ended.err
    assert "mkdir" in ended.err
    assert "which was not done" in ended.err
    assert not (tmp_path / "owned").exists()


def test_a_whole_network_in_a_pickle_is_refused_with_what_to_ask_for(reference: ReferenceNetwork, tmp_path: Path) -> None:
    ended = imported(saved(tmp_path / "network.pth", reference), *ORDER)

    assert ended.code == 4
    assert "ReferenceNetwork" in ended.err
    assert "torch.save(model.state_dict(), FILE)" in ended.err


def test_the_import_itself_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.pth"):
        import_official(tmp_path / "gone.pth", DEFAULT_MODALITIES)
