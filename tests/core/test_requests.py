"""A site's request says its name and its key, signed, and no other is taken for one."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from brainunet.certificates import fingerprint, make_request, new_site_key, read_certificate, read_request
from brainunet.errors import ConfigError
from tests.support.cases import assert_helps
from tests.support.keys import AUTHORITY, DSA_KEY, KEY, NAME, RSA_KEY, openssh, same


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
