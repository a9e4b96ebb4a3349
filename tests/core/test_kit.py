"""A kit is opened when everything in it fits together, and otherwise refused with what to do about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from brainunet.addresses import host_and_port
from brainunet.certificates import fingerprint, make_request, new_site_key, read_request
from brainunet.errors import ConfigError
from brainunet.kit import Kit, open_kit, require_kit_of, seal
from brainunet.signing import SigningKey, new_signing_key
from tests.support.authority import DAY, Authority, new_authority, pem_of
from tests.support.cases import assert_helps

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LIFE: dict[str, Any] = {"not_before": NOW - 10 * DAY, "not_after": NOW + 10 * DAY}
SITE = "charite-berlin"
SITE_KEY = new_site_key()
REQUEST = read_request(make_request(SITE_KEY, SITE))
AUTHORITY = new_authority(not_before=NOW - 100 * DAY, not_after=NOW + 100 * DAY)
SIGNING_KEY = new_signing_key()
ANOTHER_KEY = new_signing_key()
CERTIFICATE = pem_of(AUTHORITY.issue(REQUEST, **LIFE))


def kit(**changes: Any) -> Kit:
    fields: dict[str, Any] = {
        "federation": "Glioma, Straße 1",
        "site": SITE,
        "server": "fl.example.org:8443",
        "ca_certificate": AUTHORITY.ca_pem,
        "site_certificate": CERTIFICATE,
        "signing_key": SIGNING_KEY.public.text,
        "issued_at": NOW,
        "registry": "fl.example.org:8444",
    }
    return Kit(**fields | changes)


def resealed(told: dict[str, Any], key: SigningKey = SIGNING_KEY, *, signed: bool = True) -> bytes:
    """The file of whatever fields, with the right checksum and, if ``signed``, the right signature."""
    fields = {name: value for name, value in told.items() if name not in ("checksum", "signature")}
    content = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    signature = key.sign("kit", content) if signed else told.get("signature")
    return json.dumps({**fields, "checksum": hashlib.sha256(content).hexdigest(), "signature": signature}).encode()


SEALED = seal(kit(), SIGNING_KEY)
TOLD: dict[str, Any] = json.loads(SEALED)
FIELDS = [name for name in TOLD if name not in ("checksum", "signature")]
OPTIONAL = "registry"


def refusal(content: bytes, *, now: datetime = NOW) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        open_kit(content, now=now)
    return raised.value


# --- there and back ---------------------------------------------------------------------------------------------------------


def test_a_kit_comes_back_as_it_was_sealed(tmp_path: Path) -> None:
    (tmp_path / "charite.kit").write_bytes(SEALED)

    assert open_kit(SEALED, now=NOW) == kit()
    assert open_kit(tmp_path / "charite.kit", now=NOW) == kit()
    require_kit_of(kit(), SITE_KEY)


def test_a_kit_of_before_there_were_registries_still_opens() -> None:
    told = {name: value for name, value in TOLD.items() if name != "registry"}

    assert open_kit(resealed(told), now=NOW) == kit(registry="")


def test_a_kit_that_is_valid_today_opens_without_a_date() -> None:
    authority = new_authority()
    fresh = kit(ca_certificate=authority.ca_pem, site_certificate=pem_of(authority.issue(REQUEST)))

    assert open_kit(seal(fresh, SIGNING_KEY)) == fresh


def test_a_mailers_line_ends_and_spaces_do_no_harm() -> None:
    for mailed in (SEALED.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + SEALED, json.dumps(TOLD).encode() + b"\n\n"):
        assert open_kit(mailed, now=NOW) == kit()


def test_a_kit_holds_no_secret_and_no_setting() -> None:
    assert set(TOLD) == {
        "format", "federation", "site", "server", "ca_certificate", "site_certificate", "signing_key", "issued_at",
        "registry", "checksum", "signature",
    }  # fmt: skip
    assert b"PRIVATE" not in SEALED


def test_a_kit_is_sealed_with_the_key_that_it_names() -> None:
    with pytest.raises(ValueError, match="the key that it names"):
        seal(kit(), ANOTHER_KEY)


# --- the fingerprint --------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_the_federation_not_of_the_site() -> None:
    other_site = read_request(make_request(new_site_key(), "lagos"))
    lagos = kit(site="lagos", site_certificate=pem_of(AUTHORITY.issue(other_site, **LIFE)))

    assert kit().fingerprint == lagos.fingerprint
    der = AUTHORITY.ca_certificate.public_bytes(Encoding.DER)
    assert kit().fingerprint == fingerprint(der + SIGNING_KEY.public.raw)


def test_a_kit_signed_with_another_key_opens_but_has_another_fingerprint() -> None:
    swapped = open_kit(resealed(TOLD | {"signing_key": ANOTHER_KEY.public.text}, ANOTHER_KEY), now=NOW)

    assert swapped.fingerprint != kit().fingerprint


def test_a_kit_of_another_authority_opens_but_has_another_fingerprint() -> None:
    theirs = kit_of(new_authority(not_before=NOW - DAY, not_after=NOW + DAY))

    assert open_kit(theirs, now=NOW).fingerprint != kit().fingerprint


def kit_of(authority: Authority, *, server: str = "fl.example.org:8443", **issued: Any) -> bytes:
    """A sealed kit whose authority issued the site's certificate."""
    certificate = authority.issue(**{"subject": REQUEST, **LIFE, **issued})
    return seal(kit(server=server, ca_certificate=authority.ca_pem, site_certificate=pem_of(certificate)), SIGNING_KEY)


# --- damage and edits -------------------------------------------------------------------------------------------------------


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
        opened = open_kit(changed, now=NOW)
    except ConfigError:
        return
    assert opened == kit()


@given(size=st.integers(0, len(SEALED) - 2))
def test_a_kit_that_was_cut_off_is_refused(size: int) -> None:
    assert_helps(refusal(SEALED[:size]), where="kit", found="something else than a kit", exit_code=4)


@pytest.mark.parametrize("field", [*FIELDS, "checksum", "signature"])
def test_a_field_left_out_is_refused_also_when_checksum_and_signature_agree(field: str) -> None:
    told = {name: value for name, value in TOLD.items() if name != field}

    assert refusal(json.dumps(told).encode()).exit_code == 4
    if field in FIELDS and field != OPTIONAL:
        assert refusal(resealed(told)).exit_code == 4


VALUES: list[Any] = ["", " ", "x", 7, None, [], {}, True, "\ud800", "a\nb", "x" * 1000]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:12])
def test_a_field_of_garbage_is_refused_also_when_checksum_and_signature_agree(field: str, value: Any) -> None:
    if field == "federation" and value in ("x", " "):
        return  # a name, if a poor one
    if field == OPTIONAL and value == "":
        return  # of a kit without

    error = refusal(resealed(TOLD | {field: value}))

    assert error.exit_code == 4
    assert error.remedy
    assert "\n" not in str(error)


NO_KITS: dict[str, tuple[bytes, str]] = {
    "0 bytes": (b"", "something else than a kit"),
    "a text": (b"Dear colleague", "something else than a kit"),
    "a list": (b"[]", "something else than a kit"),
    "other JSON": (b'{"a": 1}', "something else than a kit"),
    "deep JSON": (b"[" * 60_000, "something else than a kit"),
    "a deep field": (resealed(TOLD)[:-1] + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}", "damaged on the way"),
    "over 64 KiB": (SEALED + b" " * 65_536, "more than 65536 bytes"),
    "a newer format": (resealed(TOLD | {"format": "brainunet-kit-2", "more": 1}), "a kit of format 'brainunet-kit-2'"),
    "a wrong checksum": (json.dumps(TOLD | {"checksum": "0" * 64}).encode(), "damaged on the way"),
    "no checksum": (json.dumps({k: v for k, v in TOLD.items() if k != "checksum"}).encode(), "damaged on the way"),
    "another server": (json.dumps(TOLD | {"server": "evil.example.org:1"}).encode(), "damaged on the way"),
    "another server and its checksum": (resealed(TOLD | {"server": "evil.example.org:1"}, signed=False), "was edited"),
    "another's signature": (resealed(TOLD, ANOTHER_KEY), "was edited"),
    "a number for a signature": (json.dumps(TOLD | {"signature": 7}).encode(), "was edited"),
    "a setting": (resealed(TOLD | {"epsilon": 8}), "a kit whose epsilon is not valid"),
    "a day for a time": (resealed(TOLD | {"issued_at": "2026-03-01T12:00:00"}), "a kit whose issued_at is not valid"),
}


@pytest.mark.parametrize("what", NO_KITS)
def test_what_is_no_sound_kit_is_refused_with_the_reason(tmp_path: Path, what: str) -> None:
    content, found = NO_KITS[what]
    (tmp_path / "charite.kit").write_bytes(content)

    assert_helps(refusal(content), where="kit", found=found, exit_code=4)
    with pytest.raises(ConfigError) as raised:
        open_kit(tmp_path / "charite.kit", now=NOW)
    assert_helps(raised.value, where="charite.kit", found=found, exit_code=4)


def test_a_damaged_kit_is_asked_for_again() -> None:
    assert "Ask for it again" in str(refusal(json.dumps(TOLD | {"server": "evil.example.org:1"}).encode()))


def test_a_signature_for_another_purpose_is_no_seal() -> None:
    content = json.dumps({name: TOLD[name] for name in FIELDS}, sort_keys=True, separators=(",", ":")).encode()

    assert "edited" in str(refusal(json.dumps(TOLD | {"signature": SIGNING_KEY.sign("model", content)}).encode()))


def test_a_kit_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        open_kit(tmp_path / "nowhere.kit")

    assert_helps(raised.value, where="nowhere.kit", found="No such file", exit_code=4)


# --- certificates -----------------------------------------------------------------------------------------------------------

LONG: dict[str, Any] = {"not_before": NOW - 100 * DAY, "not_after": NOW + 100 * DAY}
MISFITS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "an authority that has expired": (
        lambda: kit_of(new_authority(not_before=NOW - 9 * DAY, not_after=NOW - DAY)),
        "kit",
        "the federation's authority has expired: it is valid from 2026-02-20 12:00+00:00 to 2026-02-28 12:00+00:00",
    ),
    "an authority of tomorrow": (
        lambda: kit_of(new_authority(not_before=NOW + DAY, not_after=NOW + 9 * DAY)),
        "kit",
        "the federation's authority is not valid yet: it is valid from 2026-03-02 12:00+00:00 to",
    ),
    "a certificate that has expired": (
        lambda: kit_of(AUTHORITY, not_after=NOW - timedelta(minutes=1)),
        "kit",
        "the certificate of charite-berlin has expired: it is valid from 2026-02-19 12:00+00:00 to 2026-03-01 11:59+00:00",
    ),
    "a certificate of tomorrow": (
        lambda: kit_of(AUTHORITY, not_before=NOW + DAY),
        "kit",
        "the certificate of charite-berlin is not valid yet: it is valid from 2026-03-02 12:00+00:00 to 2026-03-11 12:00+00:00",
    ),
    "a certificate of another authority of the same name": (
        lambda: seal(kit(site_certificate=pem_of(new_authority(**LONG).issue(REQUEST, **LIFE))), SIGNING_KEY),
        "certificate of charite-berlin",
        "it was not issued by this federation's authority",
    ),
    "a certificate that certified another": (
        lambda: kit_of(Authority(SITE_KEY, AUTHORITY.issue(REQUEST, **LIFE))),
        "kit",
        "not one of an authority",
    ),
    "an authority that may not certify": (lambda: kit_of(new_authority(**LONG, is_ca=False)), "kit", "not one of an authority"),
    "an authority that says nothing of it": (
        lambda: kit_of(new_authority(**LONG, is_ca=None)),
        "kit",
        "not one of an authority",
    ),
    "another site's certificate": (lambda: kit_of(AUTHORITY, name="lagos"), "kit", "a certificate for 'lagos'"),
    "a certificate without a name": (
        lambda: kit_of(AUTHORITY, subject=SITE_KEY.public_key()),
        "kit",
        "a certificate for ''",
    ),
    "no certificate": (lambda: seal(kit(site_certificate="x"), SIGNING_KEY), "kit", "no certificate"),
    "no authority": (lambda: seal(kit(ca_certificate=""), SIGNING_KEY), "kit", "no certificate"),
    "a registry without a port": (
        lambda: seal(kit(registry="fl.example.org"), SIGNING_KEY),
        "kit",
        "a server 'fl.example.org'",
    ),
    "no port": (lambda: kit_of(AUTHORITY, server="fl.example.org"), "kit", "a server 'fl.example.org'"),
}


@pytest.mark.usefixtures("_at_greenwich")
@pytest.mark.parametrize("what", MISFITS)
def test_certificates_that_do_not_fit_together_are_refused(what: str) -> None:
    content, where, found = MISFITS[what]

    assert_helps(refusal(content()), where=where, found=found, exit_code=4)


@pytest.mark.usefixtures("_at_greenwich")
def test_a_clock_that_is_wrong_is_thought_of() -> None:
    error = refusal(SEALED, now=datetime(1970, 1, 1, tzinfo=UTC))

    assert "this computer's clock says 1970-01-01 00:00+00:00" in error.found
    assert "check the clock" in error.remedy


def test_a_kit_opens_on_the_first_and_on_the_last_second_of_its_certificate() -> None:
    for moment in LIFE.values():
        assert open_kit(SEALED, now=moment) == kit()


def test_a_kit_for_another_key_is_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        require_kit_of(kit(), new_site_key())

    assert_helps(raised.value, where="kit", found="a kit for charite-berlin that was made for another key", exit_code=4)


# --- the server -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("fl.example.org:8443", ("fl.example.org", 8443)),
        ("localhost:1", ("localhost", 1)),
        ("flower_server-1:65535", ("flower_server-1", 65535)),
        ("10.0.0.7:443", ("10.0.0.7", 443)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
    ],
)
def test_a_server_is_a_host_and_a_port(server: str, expected: tuple[str, int]) -> None:
    assert host_and_port(server) == expected


@pytest.mark.parametrize(
    "server",
    [
        "", ":", "host", "host:", ":443", "host:0", "host:65536", "host:08443", "host:+1", "host:४४३", "host:443 ", " host:443",
        "https://host:443", "a b:443", "host:443/path", "-host:443", "host-:443", "host..org:443", "::1:443", "[::1:443",
        "[]:443", "[host]:443", "ü.org:443", "a" * 64 + ":443", "a." * 127 + "org:443", "host\n:443", "host:443\n",
    ],
)  # fmt: skip
def test_what_is_no_host_and_port_is_refused(server: str) -> None:
    with pytest.raises(ConfigError, match="host:port, such as"):
        host_and_port(server)
