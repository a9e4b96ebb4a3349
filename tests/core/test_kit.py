"""A kit is opened when everything in it fits together, and otherwise refused with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from brainunet.certificates import fingerprint, make_request, new_site_key, read_request
from brainunet.errors import ConfigError
from brainunet.kit import open_kit, require_kit_of, seal
from tests.support.authority import DAY, Authority, new_authority, pem_of
from tests.support.cases import assert_helps
from tests.support.sealed_files import ANOTHER_KEY, AUTHORITY, KIT, LIFE, NOW, REQUEST, SIGNING_KEY, SITE_KEY, kit

SEALED, TOLD, refusal = KIT.content, KIT.told, KIT.refusal  # damage and edits: tests/contracts/test_sealed_files.py


def test_a_kit_of_before_there_were_registries_still_opens() -> None:
    told = {name: value for name, value in TOLD.items() if name != "registry"}

    assert open_kit(KIT.resealed(told), now=NOW) == kit(registry="")


def test_a_kit_that_is_valid_today_opens_without_a_date() -> None:
    authority = new_authority()
    fresh = kit(ca_certificate=authority.ca_pem, site_certificate=pem_of(authority.issue(REQUEST)))

    assert open_kit(seal(fresh, SIGNING_KEY)) == fresh


def test_a_kit_holds_no_secret_and_no_setting() -> None:
    assert set(TOLD) == {
        "format", "federation", "site", "server", "ca_certificate", "site_certificate", "signing_key", "issued_at",
        "registry", "checksum", "signature",
    }  # fmt: skip
    assert b"PRIVATE" not in SEALED


# --- the fingerprint --------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_the_federation_not_of_the_site() -> None:
    other_site = read_request(make_request(new_site_key(), "lagos"))
    lagos = kit(site="lagos", site_certificate=pem_of(AUTHORITY.issue(other_site, **LIFE)))

    assert kit().fingerprint == lagos.fingerprint
    der = AUTHORITY.ca_certificate.public_bytes(Encoding.DER)
    assert kit().fingerprint == fingerprint(der + SIGNING_KEY.public.raw)


def test_a_kit_signed_with_another_key_opens_but_has_another_fingerprint() -> None:
    swapped = open_kit(KIT.resealed(TOLD | {"signing_key": ANOTHER_KEY.public.text}, ANOTHER_KEY), now=NOW)

    assert swapped.fingerprint != kit().fingerprint


def test_a_kit_of_another_authority_opens_but_has_another_fingerprint() -> None:
    theirs = kit_of(new_authority(not_before=NOW - DAY, not_after=NOW + DAY))

    assert open_kit(theirs, now=NOW).fingerprint != kit().fingerprint


def kit_of(authority: Authority, *, server: str = "fl.example.org:8443", **issued: Any) -> bytes:
    """A sealed kit whose authority issued the site's certificate."""
    certificate = authority.issue(**{"subject": REQUEST, **LIFE, **issued})
    return seal(kit(server=server, ca_certificate=authority.ca_pem, site_certificate=pem_of(certificate)), SIGNING_KEY)


def test_a_damaged_kit_is_asked_for_again() -> None:
    assert "Ask for it again" in str(refusal(json.dumps(TOLD | {"server": "evil.example.org:1"}).encode()))


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


def test_a_kit_is_for_one_key() -> None:
    require_kit_of(kit(), SITE_KEY)

    with pytest.raises(ConfigError) as raised:
        require_kit_of(kit(), new_site_key())

    assert_helps(raised.value, where="kit", found="a kit for charite-berlin that was made for another key", exit_code=4)
