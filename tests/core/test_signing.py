"""A signature passes for its own key, purpose and content, and for nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from brainunet.errors import BrainUNetError, ConfigError
from brainunet.signing import (
    PublicKey,
    SigningKey,
    read_signing_key,
    sign_file,
    signer_of,
    verify_file,
    write_signing_key,
)
from tests.support.cases import assert_helps
from tests.support.rights import largest_file

# always the same two, for they stand in the names of tests
KEY, OTHER = (SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in (1, 2))
GENUINE = KEY.sign("kit", b"content")


# --- signatures -------------------------------------------------------------------------------------------------------------


@given(purpose=st.text(st.characters(codec="utf-8")), content=st.binary())
def test_what_was_signed_is_verified(purpose: str, content: bytes) -> None:
    assert KEY.public.verify(purpose, content, KEY.sign(purpose, content))


@given(
    signed=st.tuples(st.text(st.characters(codec="utf-8"), max_size=3), st.binary(max_size=3)),
    asked=st.tuples(st.text(st.characters(codec="utf-8"), max_size=3), st.binary(max_size=3)),
)
def test_a_signature_passes_for_no_other_purpose_or_content(signed: tuple[str, bytes], asked: tuple[str, bytes]) -> None:
    assert KEY.public.verify(*asked, KEY.sign(*signed)) == (signed == asked)


def test_what_is_signed_is_written_down() -> None:
    message = b"brainunet-fl\0kit\0" + hashlib.sha256(b"content").digest()

    KEY.private.public_key().verify(base64.b64decode(GENUINE), message)
    assert KEY.sign("kit", b"content") == GENUINE
    assert len(GENUINE) == 88


def test_another_keys_signature_is_refused() -> None:
    assert not OTHER.public.verify("kit", b"content", GENUINE)


@given(place=st.integers(0, 87), character=st.characters())
def test_a_signature_has_one_spelling(place: int, character: str) -> None:
    changed = GENUINE[:place] + character + GENUINE[place + 1 :]

    assert KEY.public.verify("kit", b"content", changed) == (changed == GENUINE)


def test_the_bits_of_its_last_character_that_mean_nothing_must_be_as_they_were_written() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    passing = [letter for letter in alphabet if KEY.public.verify("kit", b"content", GENUINE[:85] + letter + "==")]

    assert passing == [GENUINE[85]]


GARBAGE: list[Any] = ["", " ", "A", "ü", GENUINE[:-4], GENUINE + "\n", GENUINE + GENUINE, "\ud800", None, 7, [], {}]


@pytest.mark.parametrize("signature", GARBAGE, ids=ascii)
def test_garbage_is_no_signature_and_no_accident(signature: Any) -> None:
    assert KEY.public.verify("kit", b"content", signature) is False


@pytest.mark.parametrize("raw", [b"", b"x", bytes(32), bytes([255]) * 32, bytes(33)])
def test_a_key_of_garbage_verifies_nothing(raw: bytes) -> None:
    assert PublicKey(raw).verify("kit", b"content", GENUINE) is False
    assert KEY.public.verify("\ud800", b"content", GENUINE) is False


# --- keys as text and files -------------------------------------------------------------------------------------------------


def test_a_public_key_comes_back_from_its_text() -> None:
    public = KEY.public

    assert PublicKey.from_text(public.text) == public
    assert public.raw == KEY.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert public.id == hashlib.sha256(public.raw).hexdigest()[:16]
    assert (len(public.text), public.id == OTHER.public.id) == (44, False)


@pytest.mark.parametrize("text", ["", "A", KEY.public.text[:-1], KEY.public.text + " ", "ü" * 44, "A" * 44, GENUINE, None, 7])
def test_a_text_that_is_no_key_is_refused(text: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        PublicKey.from_text(text)

    assert raised.value.exit_code == 4
    assert "32 bytes in base64" in str(raised.value)


def test_a_signing_key_comes_back_from_its_file_which_only_its_owner_may_read(tmp_path: Path) -> None:
    write_signing_key(tmp_path / "keys" / "signing.key", KEY)

    assert read_signing_key(tmp_path / "keys" / "signing.key").public == KEY.public
    assert stat.S_IMODE((tmp_path / "keys" / "signing.key").stat().st_mode) == 0o600
    assert len(list((tmp_path / "keys").iterdir())) == 1


def test_a_signing_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    write_signing_key(path, KEY)

    with pytest.raises(ConfigError) as raised:
        write_signing_key(path, OTHER)

    assert_helps(raised.value, where="signing.key", found="there is a file of this name already", exit_code=4)
    assert read_signing_key(path).public == KEY.public
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_nowhere_is_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "signing.key").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="already"):
        write_signing_key(tmp_path / "signing.key", KEY)

    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_leaves_no_half_of_a_key(tmp_path: Path) -> None:
    with largest_file(0), pytest.raises(BrainUNetError, match=r"signing.key: it can't be written: File too large"):
        write_signing_key(tmp_path / "signing.key", KEY)

    assert list(tmp_path.iterdir()) == []


def pem(key: Any, *, password: bytes = b"") -> bytes:
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))


NO_KEYS = {
    "0 bytes": b"",
    "a text": b"secret",
    "a key cut off": pem(KEY.private)[:60],
    "an EC key": pem(generate_private_key(SECP384R1())),
    "an Ed448 key": pem(Ed448PrivateKey.generate()),
    "a key with a password": pem(KEY.private, password=b"secret"),
    "a public key": KEY.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
}


@pytest.mark.parametrize("content", NO_KEYS)
def test_a_file_that_is_no_signing_key_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "signing.key").write_bytes(NO_KEYS[content])

    with pytest.raises(ConfigError) as raised:
        read_signing_key(tmp_path / "signing.key")

    assert_helps(raised.value, where="signing.key", found="something else than a signing key", exit_code=4)


def test_a_key_that_is_missing_or_far_too_long_is_named(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(20_000))

    for name, found in (("nowhere", "No such file"), ("long", "more than 16384 bytes")):
        with pytest.raises(ConfigError) as raised:
            read_signing_key(tmp_path / name)
        assert_helps(raised.value, where=name, found=found, exit_code=4)


# --- signed files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    path.write_bytes(b"weights" * 1000)
    assert sign_file(path, KEY, "model") == tmp_path / "best.safetensors.sig"
    return path


def test_a_signed_file_is_verified_and_its_signature_is_that_of_its_bytes(signed: Path) -> None:
    told = json.loads(Path(f"{signed}.sig").read_text())

    verify_file(signed, KEY.public, "model")
    assert told == {
        "format": "brainunet-signature-1",
        "purpose": "model",
        "key": KEY.public.text,
        "sha256": hashlib.sha256(signed.read_bytes()).hexdigest(),
        "signature": KEY.sign("model", signed.read_bytes()),
    }


def test_a_file_may_be_signed_again_and_renamed_with_its_signature(signed: Path) -> None:
    sign_file(signed, OTHER, "model")
    signed.rename(signed.with_name("other"))
    Path(f"{signed}.sig").rename(signed.with_name("other.sig"))

    verify_file(signed.with_name("other"), OTHER.public, "model")


def told_of(path: Path, **changes: Any) -> None:
    """Other fields in the signature's file; None takes one away."""
    told = {**json.loads(Path(f"{path}.sig").read_text()), **changes}
    Path(f"{path}.sig").write_text(json.dumps({name: value for name, value in told.items() if value is not None}))


def forged(path: Path) -> None:
    """A signature by another key that claims to be ours."""
    sign_file(path, OTHER, "model")
    told_of(path, key=KEY.public.text)


def for_another_purpose(path: Path) -> None:
    sign_file(path, KEY, "kit")
    told_of(path, purpose="model")


SIG = "best.safetensors.sig"
DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "one bit": (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"r"), "best.safetensors", "changed after it was signed"),
    "no bytes": (lambda p: p.write_bytes(b""), "best.safetensors", "changed after it was signed"),
    "one byte more": (lambda p: p.write_bytes(p.read_bytes() + b"s"), "best.safetensors", "changed after it was signed"),
    "no file": (lambda p: p.unlink(), "best.safetensors", "No such file"),
    "no signature": (lambda p: Path(f"{p}.sig").unlink(), SIG, "No such file"),
    "an empty signature": (lambda p: Path(f"{p}.sig").write_text(""), SIG, "no signature file"),
    "no JSON": (lambda p: Path(f"{p}.sig").write_text("{"), SIG, "no signature file"),
    "deep JSON": (lambda p: Path(f"{p}.sig").write_text("[" * 16_000), SIG, "no signature file"),
    "a list": (lambda p: Path(f"{p}.sig").write_text("[]"), SIG, "no signature file"),
    "bytes": (lambda p: Path(f"{p}.sig").write_bytes(bytes([255, 0, 200])), SIG, "no signature file"),
    "too much": (lambda p: Path(f"{p}.sig").write_text(" " * 20_000), SIG, "more than 16384 bytes"),
    "a field less": (lambda p: told_of(p, purpose=None), SIG, "no signature file"),
    "a field more": (lambda p: told_of(p, note="x"), SIG, "no signature file"),
    "a number": (lambda p: told_of(p, signature=7), SIG, "no signature file"),
    "a newer format": (lambda p: told_of(p, format="brainunet-signature-2"), SIG, "a signature of format"),
    "another key": (lambda p: sign_file(p, OTHER, "model"), SIG, f"a signature by key {OTHER.public.id}"),
    "a key that is none": (lambda p: told_of(p, key="x"), SIG, "a signature by key 'x'"),
    "another purpose": (lambda p: sign_file(p, KEY, "kit"), SIG, "a signature for 'kit'"),
    "a purpose put in later": (for_another_purpose, SIG, "a signature that is not genuine"),
    "a forged signature": (forged, SIG, "a signature that is not genuine"),
    "a signature of garbage": (lambda p: told_of(p, signature="AAAA"), SIG, "a signature that is not genuine"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_is_refused_when_it_or_its_signature_is_not_what_was_signed(signed: Path, damage: str) -> None:
    change, where, found = DAMAGE[damage]
    change(signed)

    with pytest.raises(ConfigError) as raised:
        verify_file(signed, KEY.public, "model")

    assert_helps(raised.value, where=where, found=found, exit_code=4)


def test_a_changed_file_whose_digest_was_changed_with_it_is_refused(signed: Path) -> None:
    signed.write_bytes(b"other weights")
    told_of(signed, sha256=hashlib.sha256(b"other weights").hexdigest())

    with pytest.raises(ConfigError, match="not genuine"):
        verify_file(signed, KEY.public, "model")


def test_a_file_that_is_missing_is_not_signed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        sign_file(tmp_path / "nowhere", KEY, "model")

    assert_helps(raised.value, where="nowhere", found="No such file", exit_code=4)
    assert list(tmp_path.iterdir()) == []


def test_a_key_tells_nothing_of_itself_when_it_is_printed() -> None:
    assert base64.b64encode(KEY.private.private_bytes_raw()).decode() not in repr(SigningKey(KEY.private))
    assert KEY.private.private_bytes_raw().hex() not in repr(KEY)


def test_a_pipe_in_the_place_of_a_signature_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    os.mkfifo(tmp_path / "model.sig")
    with pytest.raises(ConfigError, match=r"model\.sig: a pipe"):
        signer_of(tmp_path / "model")
