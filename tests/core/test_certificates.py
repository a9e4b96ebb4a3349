"""A site's request is read for its name and its key alone, and nothing hostile in it does more than be refused."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from brainunet.certificates import (
    common_name,
    days_left,
    fingerprint,
    new_site_key,
    public_key_id,
    read_certificate,
    read_site_key,
    require_issued_by,
    write_site_key,
)
from brainunet.errors import BrainUNetError, ConfigError
from tests.support.authority import DAY, new_authority, pem_of
from tests.support.cases import assert_helps
from tests.support.keys import AUTHORITY, DSA_KEY, KEY, NAME, RSA_KEY, openssh, same
from tests.support.rights import largest_file

# --- keys -------------------------------------------------------------------------------------------------------------------


def test_a_site_key_comes_back_from_its_file_which_only_its_owner_may_read(tmp_path: Path) -> None:
    path = tmp_path / "home" / "site.key"
    write_site_key(path, KEY)

    assert same(read_site_key(path).public_key(), KEY.public_key())
    assert isinstance(KEY.curve, ec.SECP384R1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert isinstance(load_ssh_private_key(path.read_bytes(), password=None), ec.EllipticCurvePrivateKey)


def test_a_site_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    write_site_key(path, KEY)

    with pytest.raises(ConfigError) as raised:
        write_site_key(path, new_site_key())

    assert_helps(raised.value, where="site.key", found="there is a file of this name already", exit_code=4)
    assert same(read_site_key(path).public_key(), KEY.public_key())
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_that_write_a_key_at_once_one_is_told_so(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from brainunet.certificates import new_site_key, write_site_key\n"
        "from brainunet.errors import ConfigError\n"
        "try: write_site_key(Path(sys.argv[1]), new_site_key())\n"
        "except ConfigError: sys.exit(4)"
    )

    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "site.key"]) for _ in range(3)]

    assert sorted(writer.wait() for writer in writers) == [0, 4, 4]
    assert list(tmp_path.iterdir()) == [tmp_path / "site.key"]


def test_a_full_disk_leaves_no_half_of_a_key(tmp_path: Path) -> None:
    with largest_file(0), pytest.raises(BrainUNetError, match=r"site.key: it can't be written: File too large"):
        write_site_key(tmp_path / "site.key", KEY)

    assert list(tmp_path.iterdir()) == []


NO_KEYS: dict[str, Callable[[], bytes]] = {
    "0 bytes": lambda: b"",
    "a text": lambda: b"secret",
    "a key cut off": lambda: openssh(KEY)[:200],
    "a key in another format": lambda: KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "another curve": lambda: openssh(ec.generate_private_key(ec.SECP256R1())),
    "RSA": lambda: openssh(RSA_KEY),
    "DSA": lambda: openssh(DSA_KEY),
    "no key at all": lambda: b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    "Ed25519": lambda: openssh(ed25519.Ed25519PrivateKey.generate()),
    "a public key": lambda: KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "very long": lambda: openssh(KEY).replace(b"-----\n", b"-----\n" + b"A" * 100_000, 1),
}


@pytest.mark.parametrize("content", NO_KEYS)
def test_a_file_that_is_no_site_key_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "site.key").write_bytes(NO_KEYS[content]())

    with pytest.raises(ConfigError) as raised:
        read_site_key(tmp_path / "site.key")

    assert_helps(raised.value, where="site.key", found="something else than a site's key", exit_code=4)


def test_a_key_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read_site_key(tmp_path / "site.key")

    assert_helps(raised.value, where="site.key", found="No such file", exit_code=4)


# --- requests ---------------------------------------------------------------------------------------------------------------


# --- fingerprints -----------------------------------------------------------------------------------------------------------


@given(content=st.binary())
def test_a_fingerprint_is_six_groups_of_five_digits(content: bytes) -> None:
    digits = fingerprint(content)

    assert re.fullmatch(r"\d{5}( \d{5}){5}", digits)
    assert int(digits.replace(" ", "")) == int(hashlib.sha256(content).hexdigest(), 16) % 10**30


def test_a_key_has_one_id() -> None:
    der = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    assert public_key_id(KEY.public_key()) == hashlib.sha256(der).hexdigest()
    assert public_key_id(AUTHORITY.issue(KEY.public_key(), NAME).public_key()) == public_key_id(KEY.public_key())


# --- certificates -----------------------------------------------------------------------------------------------------------


def test_a_certificate_comes_back_from_its_pem() -> None:
    certificate = AUTHORITY.issue(KEY.public_key(), NAME)

    assert read_certificate(pem_of(certificate)) == certificate
    assert read_certificate(pem_of(certificate).encode()) == certificate
    assert common_name(certificate.subject) == NAME


VERSION_3 = b"\xa0\x03\x02\x01\x02"
STRANGE = (  # a certificate of a version that there is not
    "-----BEGIN CERTIFICATE-----\n"
    + base64.encodebytes(
        AUTHORITY.ca_certificate.public_bytes(Encoding.DER).replace(VERSION_3, VERSION_3[:-1] + b"\x07")
    ).decode()
    + "-----END CERTIFICATE-----\n"
)


@pytest.mark.parametrize(
    "content", ["", "x", "ü\ud800", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", STRANGE]
)
def test_what_is_no_certificate_is_refused(content: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_certificate(content, Path("/secret/ca.crt"))

    assert_helps(raised.value, where="ca.crt", found="no certificate", exit_code=4)


def test_a_certificate_is_at_most_16_kib() -> None:
    with pytest.raises(ConfigError):
        read_certificate(AUTHORITY.ca_pem + " " * 16_384)


def test_the_days_left_are_counted_down_and_on() -> None:
    end = datetime(2027, 1, 31, 12, tzinfo=UTC)
    certificate = AUTHORITY.issue(KEY.public_key(), NAME, not_before=end - 90 * DAY, not_after=end)

    left = [
        days_left(certificate, end - since) for since in (90 * DAY, DAY, timedelta(hours=23), 0 * DAY, -timedelta(seconds=1))
    ]

    assert left == [90, 1, 0, 0, -1]
    assert days_left(AUTHORITY.issue(KEY.public_key(), NAME)) == 364


def test_a_certificate_must_be_signed_by_the_authority_not_only_name_it() -> None:
    certificate = AUTHORITY.issue(KEY.public_key(), NAME)

    require_issued_by(certificate, AUTHORITY.ca_certificate)
    for other in (new_authority(), new_authority("another")):
        with pytest.raises(ConfigError) as raised:
            require_issued_by(certificate, other.ca_certificate)
        assert_helps(raised.value, where=f"certificate of {NAME}", found="not issued by this federation", exit_code=4)
