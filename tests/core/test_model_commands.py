"""``brainunet model show`` and ``verify``: a model file told in words, and believed only when it is signed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainunet.cli import main as brainunet
from brainunet.errors import ConfigError
from brainunet.model import size_of
from brainunet.modelfile import SIGNED_AS, parameter_count, read_model, write_model
from brainunet.signing import SigningKey, read_public_key, sign_file, signer_of, write_signing_key
from brainunet.starter import STARTER
from tests.support.cases import assert_helps
from tests.support.simulation import run

KEY, OTHER = (SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in (1, 2))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(STARTER.read_bytes())
    return path


@pytest.fixture
def signed(model: Path) -> Path:
    sign_file(model, KEY, SIGNED_AS)
    return model


# --- show -------------------------------------------------------------------------------------------------------------------


def test_a_model_is_shown_with_its_card_its_size_and_that_nobody_signed_it(model: Path) -> None:
    ended = run(brainunet, "model", "show", model)

    _, card = read_model(model)
    assert ended.code == 0, ended.err
    assert card.weights_sha256 in ended.out
    for words in (card.title, "brainunet-nano, group norm", "t1c, t2w, t2f", "phantoms", " MB", "none beside it", "WT 0."):
        assert words in ended.out


def test_in_json_the_card_is_whole_and_the_signature_has_a_state(signed: Path) -> None:
    facts = json.loads(run(brainunet, "model", "show", signed, "--json").out)

    weights, card = read_model(signed)
    assert facts["card"] == card.model_dump(mode="json")
    assert facts["parameters"] == parameter_count(weights) == size_of(card.model, (32, 32, 32)).parameters
    assert facts["bytes"] == signed.stat().st_size
    assert facts["signature"] == {"state": "genuine", "key_id": KEY.public.id, "reason": None}


def test_words_in_a_card_are_no_markup(model: Path) -> None:
    weights, card = read_model(model)
    write_model(model, weights, card.model_copy(update={"title": "[red]a[/nonsense]", "notes": "[bold]"}))

    ended = run(brainunet, "model", "show", model)

    assert ended.code == 0
    assert "[red]a[/nonsense]" in ended.out


def test_a_model_that_was_changed_after_signing_is_shown_with_a_warning(signed: Path) -> None:
    weights, card = read_model(signed)
    write_model(signed, weights, card.model_copy(update={"title": "better"}))

    ended = run(brainunet, "model", "show", signed)

    assert ended.code == 0
    assert "does NOT fit" in ended.out
    assert "changed after it was signed" in ended.out


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    for command in ("show", "verify"):
        ended = run(brainunet, "model", command, tmp_path / "gone.safetensors")
        assert ended.code == 4
        assert "gone.safetensors: No such file" in ended.err


# --- verify -----------------------------------------------------------------------------------------------------------------


def test_a_signed_model_passes_for_its_key_by_file_by_text_and_by_id(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "signing.pub").write_text(KEY.public.text + "\n")

    for key in (tmp_path / "signing.pub", KEY.public.text, KEY.public.id, KEY.public.id.upper()):
        ended = run(brainunet, "model", "verify", signed, "--key", key)
        assert ended.code == 0, ended.err
        assert f"signed by key {KEY.public.id}, the one you named" in ended.out


def test_without_a_key_it_is_said_that_anybody_could_have_signed(signed: Path) -> None:
    ended = run(brainunet, "model", "verify", signed)

    assert ended.code == 0
    assert "anybody can make a key" in ended.out
    facts = json.loads(run(brainunet, "model", "verify", signed, "--json").out)
    assert facts["key_id"] == KEY.public.id
    assert facts["key_is_the_one_asked_for"] is None


def test_another_key_is_refused_however_it_is_named(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "other.pub").write_text(OTHER.public.text)

    for key in (tmp_path / "other.pub", OTHER.public.text, OTHER.public.id):
        ended = run(brainunet, "model", "verify", signed, "--key", key)
        assert ended.code == 4
        assert f"by key {KEY.public.id}" in ended.err
        assert f"one by key {OTHER.public.id}" in ended.err


def test_no_signature_a_changed_file_and_another_purpose_are_refused(model: Path) -> None:
    assert "no signature beside the model" in run(brainunet, "model", "verify", model).err

    sign_file(model, KEY, "kit")
    assert "for 'kit', but expected one for 'model'" in run(brainunet, "model", "verify", model).err

    sign_file(model, KEY, SIGNED_AS)
    weights, card = read_model(model)
    write_model(model, weights, card.model_copy(update={"title": "better"}))
    ended = run(brainunet, "model", "verify", model, "--key", KEY.public.id)
    assert ended.code == 4
    assert "changed after it was signed" in ended.err


def test_a_key_that_is_none_ends_with_2_and_what_one_looks_like(signed: Path) -> None:
    ended = run(brainunet, "model", "verify", signed, "--key", "mine.pub")

    assert ended.code == 2
    assert "'mine.pub', but expected a file that is there, a key of 44 characters in base64, or an id of 16" in ended.err


# --- where keys are read from -----------------------------------------------------------------------------------------------


def test_a_public_key_is_read_from_its_file_or_from_the_private_key_s(tmp_path: Path) -> None:
    (tmp_path / "signing.pub").write_text(f"{KEY.public.text}\n")
    write_signing_key(tmp_path / "signing.key", KEY)

    assert read_public_key(tmp_path / "signing.pub") == read_public_key(tmp_path / "signing.key") == KEY.public


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff\xfe", KEY.public.text[:-2].encode(), b"-----BEGIN nonsense"])
def test_a_file_that_holds_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "signing.pub").write_bytes(content)

    with pytest.raises(ConfigError) as raised:
        read_public_key(tmp_path / "signing.pub")

    assert_helps(raised.value, where="signing.pub", found="something else than a", exit_code=4)


def test_a_signature_names_its_signer_and_no_signature_none(model: Path) -> None:
    assert signer_of(model) is None

    sign_file(model, KEY, SIGNED_AS)
    assert signer_of(model) == KEY.public

    beside = model.with_name(f"{model.name}.sig")
    told = json.loads(beside.read_text())
    beside.write_text(json.dumps({**told, "key": "nonsense"}))
    with pytest.raises(ConfigError, match="names no key"):
        signer_of(model)
