"""A site's request is read for its name and its key alone, and nothing hostile in it does more than be refused."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from brainunet.certificates import (
    common_name,
    days_left,
    fingerprint,
    make_request,
    new_site_key,
    public_key_id,
    read_certificate,
    read_request,
    read_site_key,
    require_issued_by,
    write_site_key,
)
from brainunet.errors import BrainUNetError, ConfigError
from tests.support.authority import DAY, new_authority, pem_of
from tests.support.cases import assert_helps
from tests.support.rights import largest_file

KEY = new_site_key()
RSA_KEY = rsa.generate_private_key(65537, 2048)
DSA_KEY = dsa.generate_private_key(1024)
NAME = "charite-berlin"
AUTHORITY = new_authority()


def same(one: Any, other: Any) -> bool:
    return public_key_id(one) == public_key_id(other)


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


def openssh(key: Any) -> bytes:
    with warnings.catch_warnings(action="ignore"):  # DSA in this format is on its way out
        return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))


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


def request(
    key: Any = KEY, names: tuple[str, ...] = (NAME,), *, hashed: Any = SHA384, extensions: tuple[x509.ExtensionType, ...] = ()
) -> bytes:
    """A request as any other program might make it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashed() if hashed else None).public_bytes(Encoding.PEM)


def test_a_request_says_the_name_and_the_key() -> None:
    content = make_request(KEY, NAME)
    read = read_request(content)

    assert read.name == NAME
    assert same(read.public_key, KEY.public_key())
    assert read.pem == content
    assert read.fingerprint == fingerprint(x509.load_pem_x509_csr(content).public_bytes(Encoding.DER))


def test_a_request_that_came_by_mail_has_the_same_fingerprint() -> None:
    content = make_request(KEY, NAME)
    mailed = b"Dear coordinator,\r\n\r\n" + content.replace(b"\n", b"\r\n") + b"\r\nKind regards\r\n"

    assert read_request(mailed).fingerprint == read_request(content).fingerprint
    assert read_request(mailed).pem == content


def test_every_request_has_a_fingerprint_of_its_own() -> None:
    requests = [make_request(KEY, NAME), make_request(KEY, "other"), make_request(new_site_key(), NAME)]

    assert len({read_request(content).fingerprint for content in requests}) == 3


def test_extensions_in_a_request_ask_for_nothing() -> None:
    wishes = (x509.BasicConstraints(ca=True, path_length=None), x509.SubjectAlternativeName([x509.DNSName("coordinator")]))

    read = read_request(request(extensions=wishes))
    issued = AUTHORITY.issue(read)

    assert (read.name, read.pem) == (NAME, read.pem)
    assert [extension.value for extension in issued.extensions] == [x509.BasicConstraints(ca=False, path_length=None)]


def with_another_key() -> bytes:
    """A request for somebody else's key: only the key's owner could have signed it."""
    ours, theirs = (x509.load_pem_x509_csr(request(key)) for key in (KEY, new_site_key()))
    our_key, their_key = (
        csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for csr in (ours, theirs)
    )
    return pem_around(ours.public_bytes(Encoding.DER).replace(our_key, their_key))


def pem_around(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE REQUEST-----\n"


def off_the_curve() -> bytes:
    der = x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER)
    point = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return pem_around(der.replace(point, point[:-1] + bytes([point[-1] ^ 1])))


def of_version(number: int) -> bytes:
    der = x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER)
    return pem_around(der.replace(b"\x02\x01\x00", bytes([2, 1, number]), 1))


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "0 bytes": (lambda: b"", "something else"),
    "a text": (lambda: b"please let me in", "something else"),
    "random PEM": (lambda: pem_around(b"\x30\x03abc"), "something else"),
    "a request cut off": (lambda: request()[:200], "something else"),
    "over 16 KiB": (lambda: request() + b" " * 16_384, "bytes"),
    "a certificate": (lambda: AUTHORITY.ca_pem.encode(), "something else"),
    "a private key": (lambda: openssh(KEY), "a private key"),
    "another curve": (lambda: request(ec.generate_private_key(ec.SECP256R1())), "a key of another kind"),
    "a longer curve": (lambda: request(ec.generate_private_key(ec.SECP521R1())), "a key of another kind"),
    "RSA": (lambda: request(RSA_KEY), "a key of another kind"),
    "Ed25519": (lambda: request(ed25519.Ed25519PrivateKey.generate(), hashed=None), "a key of another kind"),
    "DSA": (lambda: request(DSA_KEY, hashed=SHA256), "a key of another kind"),
    "somebody else's key": (with_another_key, "a signature that the key in it did not make"),
    "a version that there is not": (lambda: of_version(7), "something else"),
    "a point that is on no curve": (off_the_curve, "something else"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_sound_request_is_refused(what: str) -> None:
    content, found = REFUSED[what]

    with pytest.raises(ConfigError) as raised:
        read_request(content())

    assert_helps(raised.value, where="request", found=found, exit_code=4)


def test_a_name_changed_after_signing_is_refused() -> None:
    der = x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER)

    with pytest.raises(ConfigError, match="a signature that the key in it did not make"):
        read_request(pem_around(der.replace(NAME.encode(), NAME.upper().encode())))


@given(place=st.integers(0), bit=st.integers(0, 7))
def test_a_changed_bit_never_changes_who_asks_for_what(place: int, bit: int) -> None:
    der = bytearray(x509.load_pem_x509_csr(make_request(KEY, NAME)).public_bytes(Encoding.DER))
    der[place % len(der)] ^= 1 << bit

    try:
        read = read_request(pem_around(bytes(der)))
    except ConfigError:
        return
    assert read.name == NAME  # some bits of a signature mean nothing
    assert same(read.public_key, KEY.public_key())


@given(content=st.binary() | st.binary().map(pem_around))
def test_no_bytes_do_more_than_be_refused(content: bytes) -> None:
    for read in (read_request, read_certificate):
        with pytest.raises(ConfigError):
            read(content)


BAD_NAMES = ["", " ", "-a", "../up", "a/b", "a b", "a\n", "ü", "a" * 41, "*", "a\0", "a,CN=b"]


@pytest.mark.parametrize("names", [*((name,) for name in BAD_NAMES if name), (), ("a", "b"), (NAME, NAME)], ids=ascii)
def test_a_request_without_one_proper_name_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as raised:
        read_request(request(names=names))

    assert raised.value.exit_code == 4
    assert "name of the site" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_no_request_is_made_for_an_improper_name(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_request(KEY, name)

    assert raised.value.exit_code == 4
    assert str(raised.value).startswith(f"name of the site: {name!r}, but expected 1 to 40 letters")


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "a" * 40, "7"])
def test_a_proper_name_is_up_to_40_characters(name: str) -> None:
    assert read_request(make_request(KEY, name)).name == name


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
