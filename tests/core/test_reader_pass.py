"""A reader's pass is opened when everything in it fits together, and its secret is never repeated."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.certificates import make_request, new_site_key, read_request
from brainunet.errors import ConfigError
from brainunet.exchanged_files import another
from brainunet.kit import Kit, open_kit
from brainunet.reader_pass import ReaderPass, new_token, open_reader_pass, read_reader_pass, seal_reader_pass, token_sha256
from brainunet.signing import SigningKey, new_signing_key
from tests.support.authority import DAY, new_authority, pem_of
from tests.support.cases import assert_helps

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
AUTHORITY = new_authority(not_before=NOW - 100 * DAY, not_after=NOW + 100 * DAY)
SIGNING_KEY = new_signing_key()
ANOTHER_KEY = new_signing_key()
TOKEN = new_token()


def reader_pass(**changes: Any) -> ReaderPass:
    fields: dict[str, Any] = {
        "federation": "Glioma, Straße 1",
        "reader": "clinic-accra",
        "server": "fl.example.org:8445",
        "ca_certificate": AUTHORITY.ca_pem,
        "signing_key": SIGNING_KEY.public.text,
        "token": TOKEN,
        "issued_at": NOW,
        "expires_at": NOW + 30 * DAY,
    }
    return ReaderPass(**fields | changes)


def resealed(told: dict[str, Any], key: SigningKey = SIGNING_KEY, *, signed: bool = True) -> bytes:
    """The file of whatever fields, with the right checksum and, if ``signed``, the right signature."""
    fields = {name: value for name, value in told.items() if name not in ("checksum", "signature")}
    content = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    signature = key.sign("reader-pass", content) if signed else told.get("signature")
    return json.dumps({**fields, "checksum": hashlib.sha256(content).hexdigest(), "signature": signature}).encode()


SEALED = seal_reader_pass(reader_pass(), SIGNING_KEY)
TOLD: dict[str, Any] = json.loads(SEALED)
FIELDS = [name for name in TOLD if name not in ("checksum", "signature")]


def refusal(content: bytes, *, now: datetime = NOW) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        open_reader_pass(content, now=now)
    assert TOKEN not in str(raised.value)
    return raised.value


def test_a_pass_comes_back_as_it_was_sealed(tmp_path: Path) -> None:
    (tmp_path / "accra.pass").write_bytes(SEALED)

    assert open_reader_pass(SEALED, now=NOW) == reader_pass()
    assert read_reader_pass(tmp_path / "accra.pass") == reader_pass()
    assert set(FIELDS) == set(ReaderPass.model_fields)


def test_a_token_is_32_random_bytes_and_is_known_again_by_its_digest_alone() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert len(TOKEN) == 43  # 32 bytes in base64, without padding
    assert token_sha256(TOKEN) == hashlib.sha256(TOKEN.encode("ascii")).hexdigest()


def test_the_secret_is_not_in_what_a_pass_shows_of_itself() -> None:
    assert TOKEN not in repr(reader_pass()) + str(reader_pass())


def test_its_fingerprint_is_the_one_that_the_federations_kits_show() -> None:
    request = read_request(make_request(new_site_key(), "lagos"))
    kit = Kit(
        federation="Glioma",
        site="lagos",
        server="fl.example.org:8443",
        ca_certificate=AUTHORITY.ca_pem,
        site_certificate=pem_of(AUTHORITY.issue(request, not_before=NOW - DAY, not_after=NOW + DAY)),
        signing_key=SIGNING_KEY.public.text,
        issued_at=NOW,
    )

    assert reader_pass().fingerprint == kit.fingerprint


def test_a_pass_is_sealed_with_the_key_that_it_names() -> None:
    with pytest.raises(ValueError, match="a reader pass is signed with the key that it names"):
        seal_reader_pass(reader_pass(), ANOTHER_KEY)


@given(field=st.sampled_from([*FIELDS, "checksum", "signature"]), data=st.data())
def test_any_edited_field_is_refused(field: str, data: st.DataObject) -> None:
    value = TOLD[field]
    place = data.draw(st.integers(0, len(value) - 1))
    character = data.draw(st.characters().filter(lambda letter: letter != value[place]))
    edited = TOLD | {field: value[:place] + character + value[place + 1 :]}

    assert refusal(json.dumps(edited).encode()).exit_code == 4
    if field not in ("checksum", "signature"):
        assert refusal(resealed(edited, signed=False)).exit_code == 4  # by somebody who knows how checksums are made


@given(place=st.integers(0, len(SEALED) - 1), byte=st.integers(0, 255))
def test_any_changed_byte_is_refused_or_changes_nothing(place: int, byte: int) -> None:
    changed = SEALED[:place] + bytes([byte]) + SEALED[place + 1 :]

    try:
        opened = open_reader_pass(changed, now=NOW)
    except ConfigError as error:
        said = str(error)
    else:
        said = ""
        assert opened == reader_pass()
    assert TOKEN not in said


@given(size=st.integers(0, len(SEALED) - 2))
def test_a_pass_that_was_cut_off_is_refused(size: int) -> None:
    assert refusal(SEALED[:size]).exit_code == 4


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_left_out_is_refused_also_when_checksum_and_signature_agree(field: str) -> None:
    assert refusal(resealed({name: value for name, value in TOLD.items() if name != field})).exit_code == 4


VALUES: list[Any] = ["", " ", "x", 7, None, [], {}, True, "\ud800", "a\nb", "x" * 1000, "A" * 43 + "="]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:12])
def test_a_field_of_garbage_is_refused_also_when_checksum_and_signature_agree(field: str, value: Any) -> None:
    if (field == "federation" and value in ("x", " ", VALUES[-1])) or (field == "reader" and value == "x"):
        return  # a name, if a poor one

    error = refusal(resealed(TOLD | {field: value}))

    assert error.exit_code == 4
    assert error.remedy
    assert "\n" not in str(error)


NO_PASSES: dict[str, tuple[bytes, str]] = {
    "0 bytes": (b"", "something else than a reader pass"),
    "a list": (b"[]", "something else than a reader pass"),
    "deep JSON": (b"[" * 60_000, "something else than a reader pass"),
    "over 64 KiB": (SEALED + b" " * 65_536, "more than 65536 bytes"),
    "a newer format": (resealed(TOLD | {"format": "brainunet-reader-2"}), "a reader pass of format 'brainunet-reader-2'"),
    "a wrong checksum": (json.dumps(TOLD | {"checksum": "0" * 64}).encode(), "damaged on the way"),
    "another server": (resealed(TOLD | {"server": "evil.example.org:1"}, signed=False), "was edited"),
    "another's signature": (resealed(TOLD, ANOTHER_KEY), "was edited"),
    "an unknown field": (resealed(TOLD | {"more": 1}), "a reader pass whose more is not valid (is not known)"),
    "a server without a port": (resealed(TOLD | {"server": "fl.example.org"}), "a server 'fl.example.org'"),
    "no authority": (
        seal_reader_pass(reader_pass(ca_certificate=new_authority(is_ca=False).ca_pem), SIGNING_KEY),
        "a certificate of the federation that is not one of an authority",
    ),
}


@pytest.mark.parametrize("what", NO_PASSES)
def test_what_is_no_sound_pass_is_refused_with_the_reason(tmp_path: Path, what: str) -> None:
    content, found = NO_PASSES[what]
    (tmp_path / "accra.pass").write_bytes(content)

    assert_helps(refusal(content), where="reader pass", found=found, exit_code=4)
    with pytest.raises(ConfigError) as raised:
        open_reader_pass(tmp_path / "accra.pass", now=NOW)
    assert_helps(raised.value, where="accra.pass", found=found, exit_code=4)


def test_a_signature_for_another_purpose_is_no_seal() -> None:
    content = json.dumps({name: TOLD[name] for name in FIELDS}, sort_keys=True, separators=(",", ":")).encode()

    assert "edited" in str(refusal(json.dumps(TOLD | {"signature": SIGNING_KEY.sign("kit", content)}).encode()))


def test_a_pass_is_valid_up_to_its_last_moment_and_its_authority_must_be_valid_too() -> None:
    assert open_reader_pass(SEALED, now=NOW + 29 * DAY) == reader_pass()
    assert "the pass of clinic-accra has expired on" in str(refusal(SEALED, now=NOW + 30 * DAY))
    assert "the federation's authority has expired" in str(refusal(SEALED, now=NOW + 101 * DAY))
    assert read_reader_pass(SEALED) == reader_pass()  # whatever the clock says


def test_a_pass_and_a_kit_in_each_others_place_are_named() -> None:
    kit = json.dumps({"format": "brainunet-kit-1"}).encode()

    assert "a kit, which the coordinator has made for a site" in str(refusal(kit))
    with pytest.raises(ConfigError, match="a reader's pass, with which published models are fetched"):
        open_kit(SEALED)
    named = another(SEALED, "request")
    assert named is not None
    assert "it holds a secret" in named[1]
