"""A reader's pass is opened when everything in it fits together, and its secret is never repeated."""

from __future__ import annotations

import hashlib
import json

import pytest

from brainunet.errors import ConfigError
from brainunet.exchanged_files import another
from brainunet.kit import open_kit
from brainunet.reader_pass import new_token, open_reader_pass, read_reader_pass, seal_reader_pass, token_sha256
from tests.support.authority import DAY, new_authority
from tests.support.sealed_files import NOW, PASS, SIGNING_KEY, TOKEN, kit, reader_pass

SEALED, refusal = PASS.content, PASS.refusal  # damage and edits: tests/contracts/test_sealed_files.py


def test_a_token_is_32_random_bytes_and_is_known_again_by_its_digest_alone() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert len(TOKEN) == 43  # 32 bytes in base64, without padding
    assert token_sha256(TOKEN) == hashlib.sha256(TOKEN.encode("ascii")).hexdigest()


def test_the_secret_is_not_in_what_a_pass_shows_of_itself() -> None:
    assert TOKEN not in repr(reader_pass()) + str(reader_pass())


def test_a_token_of_another_form_is_refused_and_not_repeated() -> None:
    for token in ("A" * 43 + "=", "A" * 42, TOKEN[:-1] + "+"):
        error = refusal(PASS.resealed(PASS.told | {"token": token}))

        assert "a reader pass whose token is not valid" in str(error)
        assert token not in str(error)


def test_an_authority_that_may_not_certify_is_refused() -> None:
    content = seal_reader_pass(reader_pass(ca_certificate=new_authority(is_ca=False).ca_pem), SIGNING_KEY)

    assert "a certificate of the federation that is not one of an authority" in str(refusal(content))


def test_its_fingerprint_is_the_one_that_the_federations_kits_show() -> None:
    assert reader_pass().fingerprint == kit().fingerprint


def test_a_pass_is_valid_up_to_its_last_moment_and_its_authority_must_be_valid_too() -> None:
    assert open_reader_pass(SEALED, now=NOW + 29 * DAY) == reader_pass()
    assert "the pass of clinic-accra has expired on" in str(refusal(SEALED, now=NOW + 30 * DAY))
    assert "the federation's authority has expired" in str(refusal(SEALED, now=NOW + 101 * DAY))
    assert read_reader_pass(SEALED) == reader_pass()  # whatever the clock says


def test_a_pass_and_a_kit_in_each_others_place_are_named() -> None:
    other = json.dumps({"format": "brainunet-kit-1"}).encode()

    assert "a kit, which the coordinator has made for a site" in str(refusal(other))
    with pytest.raises(ConfigError, match="a reader's pass, with which published models are fetched"):
        open_kit(SEALED)
    named = another(SEALED, "request")
    assert named is not None
    assert "it holds a secret" in named[1]
