"""A model file holds exactly what was written into it, or it is refused with the reason."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file

from brainunet.config import ModelConfig, PreprocessConfig
from brainunet.errors import ConfigError
from brainunet.modelfile import ModelCard, read_model, write_model
from brainunet.records import ScoreRow, SiteScore
from brainunet.weights import Weights
from tests.support.cases import assert_helps

MADE_AT = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
WEIGHTS = Weights.of({"z.w": np.arange(6).reshape(2, 3), "a.b": np.float32(0.5), "m": [1.0, -0.0]})
SCORE = SiteScore(cases=1, rows=(ScoreRow(structure="WT", metric="dice", mean=0.5, median=0.5, n=1, missing=0),))


def card(**facts: Any) -> ModelCard:
    return ModelCard.model_validate(
        {
            "title": "Ein Modell für Tests",
            "model": ModelConfig(preset="brainunet-nano", norm="batch"),
            "preprocess": PreprocessConfig(crop_margin_voxels=7),
            "provenance": 'made of numbers, "by hand"\nin two lines',
            "trained_on": "nothing",
            "scores": {"all": SCORE},
            "made_at": MADE_AT,
            **facts,
        }
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_model(tmp_path / "model.safetensors", WEIGHTS, card())
    return tmp_path / "model.safetensors"


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and values of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: dict[str, Any], values: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def change_metadata(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    header, values = parts(path.read_bytes())
    (key,) = header["__metadata__"]
    told = json.loads(header["__metadata__"][key])
    change(told)
    header["__metadata__"][key] = json.dumps(told)
    path.write_bytes(joined(header, values))


# --- there and back ---------------------------------------------------------------------------------------------------------


def test_weights_and_card_come_back_as_they_were_written(path: Path) -> None:
    weights, found = read_model(path)

    assert weights.layout == WEIGHTS.layout
    assert weights.digest == WEIGHTS.digest
    assert found == card(weights_sha256=WEIGHTS.digest)
    assert write_model(path, WEIGHTS, card()) == found


def test_the_order_of_the_names_is_kept(path: Path) -> None:
    assert read_model(path)[0].names == ("z.w", "a.b", "m")


@given(
    names=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), unique=True, max_size=5).filter(
        lambda names: "__metadata__" not in names
    ),
    data=st.data(),
)
def test_weights_of_any_names_and_shapes_come_back(
    names: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shapes = arrays.array_shapes(min_dims=0, max_dims=4, max_side=3)
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    weights = Weights.of({name: data.draw(arrays.arrays(np.float32, shapes, elements=finite)) for name in names})
    path = tmp_path_factory.getbasetemp() / "any.safetensors"

    write_model(path, weights, card())

    assert read_model(path)[0].digest == weights.digest
    assert read_model(path)[0].layout == weights.layout


def test_arrays_may_lie_in_memory_in_any_way(path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = Weights.of({"turned": array.T, "every other": array[::2, ::3], "fortran": np.asfortranarray(array)})

    write_model(path, views, card())

    assert np.array_equal(read_model(path)[0]["turned"], array.T)


def test_any_safetensors_reader_can_open_it(path: Path) -> None:
    found = load_file(path)

    assert {name: array.tolist() for name, array in found.items()} == {"z.w": [[0, 1, 2], [3, 4, 5]], "a.b": 0.5, "m": [1, 0]}


def test_equal_inputs_with_a_fixed_date_give_equal_bytes(tmp_path: Path) -> None:
    written = set()
    for number in range(20):
        write_model(tmp_path / f"{number}", WEIGHTS, card())
        written.add((tmp_path / f"{number}").read_bytes())

    assert len(written) == 1


def test_a_card_without_a_date_gets_one(tmp_path: Path) -> None:
    written = write_model(tmp_path / "model", WEIGHTS, card(made_at=None))

    assert written.made_at is not None
    assert abs((datetime.now(UTC) - written.made_at).total_seconds()) < 60
    assert read_model(tmp_path / "model")[1] == written


# --- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_not_written(bad: float, path: Path) -> None:
    before = path.read_bytes()

    with pytest.raises(ConfigError) as raised:
        write_model(path, Weights.of({"w": [1.0, bad]}), card())

    assert_helps(raised.value, where=path.name, found="weights that are NaN or infinite", exit_code=4)
    assert path.read_bytes() == before


Damage = Callable[[Path], object]


def rewrite(change: Callable[[dict[str, Any], bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(*parts(path.read_bytes())))


def with_metadata(change: Callable[[dict[str, Any]], object]) -> Damage:
    return lambda path: change_metadata(path, change)


def one_nan(path: Path) -> None:
    """A NaN among the weights, and a card that agrees with it."""
    bad = {**WEIGHTS.as_dict(), "m": np.array([np.nan, 0], np.float32)}
    header, values = parts(path.read_bytes())
    start, stop = header["m"]["data_offsets"]
    path.write_bytes(joined(header, values[:start] + bad["m"].tobytes() + values[stop:]))
    change_metadata(path, lambda told: told["card"].update(weights_sha256=Weights.of(bad).digest))


def as_dtype(name: str, values_in_8_bytes: int) -> Damage:
    """One array of two numbers said to be of another type."""

    def change(header: dict[str, Any], values: bytes) -> bytes:
        header["m"].update(dtype=name, shape=[values_in_8_bytes])
        return joined(header, values)

    return rewrite(change)


DAMAGE: dict[str, tuple[Damage, str]] = {
    "0 bytes": (lambda path: path.write_bytes(b""), "damaged or no safetensors"),
    "a few bytes": (lambda path: path.write_bytes(b"abc"), "damaged or no safetensors"),
    "random bytes": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(999)), "damaged or no safetensors"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04\x95\x10" + bytes(100)), "damaged or no safetensors"),
    "a file cut off": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged or no safetensors"),
    "a file cut off in its header": (lambda path: path.write_bytes(path.read_bytes()[:100]), "damaged or no safetensors"),
    "a file with more behind it": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "damaged or no safetensors"),
    "no metadata": (rewrite(lambda h, v: joined({k: h[k] for k in h if k != "__metadata__"}, v)), "no model card"),
    "other metadata": (rewrite(lambda h, v: joined({**h, "__metadata__": {"format": "pt"}}, v)), "no model card"),
    "metadata that is no JSON": (rewrite(lambda h, v: joined({**h, "__metadata__": {"brainunet": "{"}}, v)), "no model card"),
    "deep metadata": (rewrite(lambda h, v: joined({**h, "__metadata__": {"brainunet": "[" * 10**5}}, v)), "no model card"),
    "a list for metadata": (rewrite(lambda h, v: joined({**h, "__metadata__": {"brainunet": "[]"}}, v)), "no model card"),
    "no card": (with_metadata(lambda told: told.pop("card")), "no model card"),
    "a card of a number": (with_metadata(lambda told: told.update(card=7)), "no model card"),
    "no names": (with_metadata(lambda told: told.pop("names")), "no model card"),
    "names of a number": (with_metadata(lambda told: told.update(names=7)), "no model card"),
    "names of two kinds": (with_metadata(lambda told: told.update(names=["m", 1, "a.b"])), "no model card"),
    "a name left out": (with_metadata(lambda told: told["names"].pop()), "other arrays than it lists"),
    "a name twice": (with_metadata(lambda told: told["names"].append("m")), "other arrays than it lists"),
    "names in another order": (with_metadata(lambda told: told["names"].reverse()), "digest is not the one on the card"),
    "a card with an unknown field": (with_metadata(lambda told: told["card"].update(note="x")), "no model card"),
    "a card without a title": (with_metadata(lambda told: told["card"].pop("title")), "no model card"),
    "a card without a format": (with_metadata(lambda told: told["card"].pop("format")), "no model card"),
    "a newer format": (
        with_metadata(lambda told: told["card"].update(format="brainunet-model-2", news=1)),
        "a model card of format brainunet-model-2",
    ),
    "another digest": (with_metadata(lambda told: told["card"].update(weights_sha256="0" * 64)), "digest is not the one"),
    "one bit of the weights": (
        lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        "digest is not the one",
    ),
    "weights of NaN": (one_nan, "weights that are NaN or infinite"),
    "integers": (as_dtype("I32", 2), "arrays that are not float32"),
    "float64": (as_dtype("F64", 1), "arrays that are not float32"),
    "bfloat16": (as_dtype("BF16", 4), "arrays that are not float32"),
    "float8": (as_dtype("F8_E4M3", 8), "arrays that are not float32"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_not_what_was_written_is_refused_with_the_reason(damage: str, path: Path) -> None:
    change, found = DAMAGE[damage]
    change(path)

    with pytest.raises(ConfigError) as raised:
        read_model(path)

    assert_helps(raised.value, where=path.name, found=found, exit_code=4)


def test_a_newer_format_asks_for_an_update_not_for_another_download(path: Path) -> None:
    change_metadata(path, lambda told: told["card"].update(format="brainunet-model-2"))

    with pytest.raises(ConfigError, match=r"expected brainunet-model-1\. Update brainunet"):
        read_model(path)


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "nowhere", "No such file"), (tmp_path, "")):
        with pytest.raises(ConfigError) as raised:
            read_model(path)

        assert_helps(raised.value, where=path.name, found=found, exit_code=4)


def test_a_file_too_large_for_a_model_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(3_000_000_000)  # takes no room on the disk

    with pytest.raises(ConfigError) as raised:
        read_model(tmp_path / "large")

    assert_helps(raised.value, where="large", found="3000000000 bytes", exit_code=4)
