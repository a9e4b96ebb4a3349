"""Files that are no such network, damaged or hostile: each is refused in words, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from brainunet.errors import ConfigError
from brainunet.labels import DEFAULT_MODALITIES
from brainunet.model.import_official import import_official
from tests.support.official import ORDER, State, imported, reference, saved, state
from tests.support.reference_network import ReferenceNetwork

__all__ = ["reference", "state"]  # fixtures

# --- other networks and broken numbers --------------------------------------------------------------------------------------


def shorn(state: State) -> State:
    return {name: value for name, value in state.items() if name != "att2.psi.0.bias"}


def light(state: State) -> State:
    """The same names and shapes in a small file: of every large array one number, told for all places."""
    return {
        name: value if value.numel() < 10_000 else value.flatten()[0].clone().expand(value.shape)
        for name, value in state.items()
    }


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

    ended = imported(saved(tmp_path / "wrong.pth", make(light(state))), *ORDER)

    assert ended.code == 4
    assert said in ended.err
    assert ended.err.startswith("error: wrong.pth: ")
    assert "Traceback" not in ended.err
    assert not (tmp_path / "model.safetensors").exists()


def test_what_is_changed_there_is_good_before_it_is_changed(state: State, tmp_path: Path) -> None:
    file = saved(tmp_path / "light.pth", light(state))

    assert file.stat().st_size < 2_000_000
    assert imported(file, *ORDER).code == 0


# --- damaged and hostile files ----------------------------------------------------------------------------------------------


class Evil:
    """A pickle that makes a file when it is opened without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def deflated(path: Path, state: State) -> None:
    torch.save(light(state), path)
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
