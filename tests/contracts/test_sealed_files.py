"""A kit and a reader's pass are sealed in one way: as sent they open, and otherwise they are refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.errors import ConfigError
from tests.support.cases import assert_helps
from tests.support.sealed_files import ANOTHER_KEY, EVERY_KIND, NOW, SIGNING_KEY, Sealed, canonical

every_kind = pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.name)


@every_kind
def test_it_comes_back_as_it_was_sealed(kind: Sealed, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(kind.content)

    assert kind.open_at(kind.content, now=NOW) == kind.record
    assert kind.open_at(tmp_path / "sent", now=NOW) == kind.record
    assert set(kind.fields) == set(type(kind.record).model_fields)


@every_kind
def test_a_mailers_line_ends_and_spaces_do_no_harm(kind: Sealed) -> None:
    crlf, marked = kind.content.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + kind.content

    for mailed in (crlf, marked, json.dumps(kind.told).encode() + b"\n\n"):
        assert kind.open_at(mailed, now=NOW) == kind.record


@every_kind
def test_it_is_sealed_with_the_key_that_it_names(kind: Sealed) -> None:
    with pytest.raises(ValueError, match=f"{kind.name} is signed with the key that it names"):
        kind.seal(kind.record, ANOTHER_KEY)


@every_kind
@given(data=st.data())
def test_any_edited_field_is_refused(kind: Sealed, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from([*kind.fields, "checksum", "signature"]))
    value = kind.told[field]
    place = data.draw(st.integers(0, len(value) - 1))
    character = data.draw(st.characters().filter(lambda letter: letter != value[place]))
    edited = kind.told | {field: value[:place] + character + value[place + 1 :]}

    assert kind.refusal(json.dumps(edited).encode()).exit_code == 4
    if field not in ("checksum", "signature"):
        assert kind.refusal(kind.resealed(edited, signed=False)).exit_code == 4  # by somebody who knows how checksums are made


@every_kind
@given(data=st.data(), byte=st.integers(0, 255))
def test_any_changed_byte_is_refused_or_changes_nothing(kind: Sealed, data: st.DataObject, byte: int) -> None:
    place = data.draw(st.integers(0, len(kind.content) - 1))
    changed = kind.content[:place] + bytes([byte]) + kind.content[place + 1 :]

    try:
        opened = kind.open_at(changed, now=NOW)
    except ConfigError as error:
        said = str(error)
    else:
        said = ""
        assert opened == kind.record
    assert kind.secret not in said


@every_kind
@given(data=st.data())
def test_what_was_cut_off_is_refused(kind: Sealed, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(kind.content) - 2))

    error = kind.refusal(kind.content[:size])

    assert_helps(error, where=kind.name, found=f"something else than a {kind.name}", exit_code=4)


@every_kind
def test_a_field_left_out_is_refused_also_when_checksum_and_signature_agree(kind: Sealed) -> None:
    for field in [*kind.fields, "checksum", "signature"]:
        told = {name: value for name, value in kind.told.items() if name != field}

        assert kind.refusal(json.dumps(told).encode()).exit_code == 4, field
        if field in kind.fields and field not in kind.optional:
            assert kind.refusal(kind.resealed(told)).exit_code == 4, field


VALUES: list[Any] = ["", " ", "x", 7, None, [], {}, True, "\ud800", "a\nb", "x" * 1000]
FIELDS = [pytest.param(kind, field, id=f"{kind.name}-{field}") for kind in EVERY_KIND for field in kind.fields]


@pytest.mark.parametrize(("kind", "field"), FIELDS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:12])
def test_a_field_of_garbage_is_refused_also_when_checksum_and_signature_agree(kind: Sealed, field: str, value: Any) -> None:
    content = kind.resealed(kind.told | {field: value})
    if value in kind.harmless.get(field, ()):
        kind.open_at(content, now=NOW)
        return

    error = kind.refusal(content)

    assert error.exit_code == 4
    assert error.remedy
    assert "\n" not in str(error)


def without_checksum(kind: Sealed) -> bytes:
    return json.dumps({name: value for name, value in kind.told.items() if name != "checksum"}).encode()


def of_another_server(kind: Sealed) -> dict[str, Any]:
    return kind.told | {"server": "evil.example.org:1"}


def signed_as_another_kind(kind: Sealed) -> bytes:
    (other,) = (other for other in EVERY_KIND if other is not kind)
    signed = canonical({name: kind.told[name] for name in kind.fields})
    return json.dumps(kind.told | {"signature": SIGNING_KEY.sign(other.purpose, signed)}).encode()


# what -> the file, and what is said of it
UNSOUND: dict[str, tuple[Callable[[Sealed], bytes], str]] = {
    "0 bytes": (lambda kind: b"", "something else than a {name}"),
    "a text": (lambda kind: b"Dear colleague", "something else than a {name}"),
    "a list": (lambda kind: b"[]", "something else than a {name}"),
    "other JSON": (lambda kind: b'{"a": 1}', "something else than a {name}"),
    "deep JSON": (lambda kind: b"[" * 60_000, "something else than a {name}"),
    "a deep field": (
        lambda kind: kind.resealed(kind.told)[:-1] + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}",
        "damaged on the way",
    ),
    "over 64 KiB": (lambda kind: kind.content + b" " * 65_536, "more than 65536 bytes"),
    "a newer format": (
        lambda kind: kind.resealed(kind.told | {"format": kind.told["format"][:-1] + "2", "more": 1}),
        "a {name} of format 'brainunet-",
    ),
    "a wrong checksum": (lambda kind: json.dumps(kind.told | {"checksum": "0" * 64}).encode(), "damaged on the way"),
    "no checksum": (without_checksum, "damaged on the way"),
    "another server": (lambda kind: json.dumps(of_another_server(kind)).encode(), "damaged on the way"),
    "another server and its checksum": (lambda kind: kind.resealed(of_another_server(kind), signed=False), "was edited"),
    "another's signature": (lambda kind: kind.resealed(kind.told, ANOTHER_KEY), "was edited"),
    "a number for a signature": (lambda kind: json.dumps(kind.told | {"signature": 7}).encode(), "was edited"),
    "a signature for another purpose": (
        signed_as_another_kind,
        "was edited",
    ),
    "an unknown field": (lambda kind: kind.resealed(kind.told | {"epsilon": 8}), "a {name} whose epsilon is not valid"),
    "a day for a time": (
        lambda kind: kind.resealed(kind.told | {"issued_at": "2026-03-01T12:00:00"}),
        "a {name} whose issued_at is not valid",
    ),
    "a server without a port": (
        lambda kind: kind.resealed(kind.told | {"server": "fl.example.org"}),
        "a server 'fl.example.org'",
    ),
}


@every_kind
@pytest.mark.parametrize("what", UNSOUND)
def test_what_is_not_sound_is_refused_with_the_reason(kind: Sealed, what: str, tmp_path: Path) -> None:
    made, words = UNSOUND[what]
    content, found = made(kind), words.format(name=kind.name)
    (tmp_path / "sent").write_bytes(content)

    assert_helps(kind.refusal(content), where=kind.name, found=found, exit_code=4)
    with pytest.raises(ConfigError) as raised:
        kind.open_at(tmp_path / "sent", now=NOW)
    assert_helps(raised.value, where="sent", found=found, exit_code=4)


@every_kind
def test_what_is_missing_is_named(kind: Sealed, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        kind.open_at(tmp_path / "nowhere", now=NOW)

    assert_helps(raised.value, where="nowhere", found="No such file", exit_code=4)
