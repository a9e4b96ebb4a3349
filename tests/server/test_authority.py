"""The authority's certificates do in a real TLS handshake what they are for, and nothing else."""

from __future__ import annotations

import ssl
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from brainunet.certificates import (
    SiteRequest,
    common_name,
    days_left,
    make_request,
    new_site_key,
    read_request,
    require_issued_by,
)
from brainunet.errors import ConfigError
from brainunet_server.authority import (
    Authority,
    certify_server,
    certify_site,
    hosts_of,
    make_authority,
    new_key,
    pem_of,
    read_authority,
    read_certificate_file,
    renew_site,
    write_key,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTS = ("fl.example.org", "10.0.0.5", "2001:db8::1")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority("Glioma Africa")


@pytest.fixture(scope="module")
def site_key() -> ec.EllipticCurvePrivateKey:
    return new_site_key()


@pytest.fixture(scope="module")
def request_of_north(site_key: ec.EllipticCurvePrivateKey) -> SiteRequest:
    return read_request(make_request(site_key, "north"))


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_the_authority_may_sign_for_others_but_make_no_other_authority() -> None:
    made = make_authority("Glioma Africa", now=NOW).certificate

    assert common_name(made.subject) == "Glioma Africa CA"
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert days_left(made, NOW) == pytest.approx(3652, abs=1)
    key = made.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp384r1"


def test_a_site_gets_its_own_name_and_key_for_two_years_and_only_as_a_client(
    authority: Authority, request_of_north: SiteRequest
) -> None:
    made = certify_site(authority, request_of_north)

    require_issued_by(made, authority.certificate)
    assert common_name(made.subject) == "north"
    assert made.public_key() == request_of_north.public_key
    assert purposes(made) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert days_left(made) == pytest.approx(730, abs=1)


def test_two_certificates_never_share_a_serial(authority: Authority, request_of_north: SiteRequest) -> None:
    first = certify_site(authority, request_of_north)
    second = renew_site(authority, first)

    assert first.serial_number != second.serial_number
    assert (first.subject, first.public_key()) == (second.subject, second.public_key())


def test_a_server_is_known_by_each_of_its_hosts_and_on_its_own_machine(authority: Authority) -> None:
    made = certify_server(authority, new_key().public_key(), "Glioma Africa", [*HOSTS, "localhost", HOSTS[0]])

    assert hosts_of(made) == (*HOSTS, "localhost", "127.0.0.1")
    assert purposes(made) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_certificate_does_not_outlast_its_authority(request_of_north: SiteRequest) -> None:
    old = make_authority("Glioma Africa", now=NOW)
    late = NOW + timedelta(days=3600)

    made = certify_site(old, request_of_north, now=late)

    assert made.not_valid_after_utc == old.certificate.not_valid_after_utc


def test_an_authority_that_has_ended_signs_nothing(request_of_north: SiteRequest) -> None:
    old = make_authority("Glioma Africa", now=NOW - timedelta(days=4000))

    with pytest.raises(ConfigError, match=r"ended on 2025-.*Make a new federation") as error:
        certify_site(old, request_of_north, now=NOW)
    assert error.value.exit_code == 4


def test_a_clock_that_is_a_little_behind_does_not_matter(authority: Authority, request_of_north: SiteRequest) -> None:
    assert certify_site(authority, request_of_north).not_valid_before_utc <= datetime.now(UTC) - timedelta(minutes=59)


class Party:
    """One end of a TLS connection in memory."""

    def __init__(self, context: ssl.SSLContext, host: str | None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=host is None, server_hostname=host)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> Party:
    """The server's end of a connection that both accept."""
    ends = Party(client, host), Party(server, None)
    for _ in range(4):
        for end, other in (ends, ends[::-1]):
            with suppress(ssl.SSLWantReadError):
                end.tls.do_handshake()
            other.incoming.write(end.outgoing.read())
    ends[1].tls.do_handshake()
    return ends[1]


@pytest.fixture(scope="module")
def contexts(
    authority: Authority,
    site_key: ec.EllipticCurvePrivateKey,
    request_of_north: SiteRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server that asks for certificates, and a site that checks as strictly as Python can."""
    folder, key = tmp_path_factory.mktemp("tls"), new_key()
    write_key(folder / "server.key", key)
    write_key(folder / "site.key", site_key)
    (folder / "server.crt").write_text(pem_of(certify_server(authority, key.public_key(), "Glioma Africa", HOSTS)))
    (folder / "site.crt").write_text(pem_of(certify_site(authority, request_of_north)))
    server, client = (ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    for context, name in ((server, "server"), (client, "site")):
        context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
        context.load_verify_locations(cadata=pem_of(authority.certificate))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.verify_mode = ssl.CERT_REQUIRED
    return server, client


@pytest.mark.parametrize("host", [*HOSTS, "localhost", "127.0.0.1"])
def test_site_and_server_accept_each_other(contexts: tuple[ssl.SSLContext, ssl.SSLContext], host: str) -> None:
    end = shake_hands(*contexts, host)

    told = end.tls.getpeercert()
    assert told is not None
    assert told["subject"] == ((("commonName", "north"),),)


def test_a_host_that_is_not_in_the_certificate_is_not_the_server(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(*contexts, "elsewhere.example.org")


def test_a_server_of_another_federation_of_the_same_name_is_refused(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.load_verify_locations(cadata=pem_of(make_authority("Glioma Africa").certificate))

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(contexts[0], stranger, HOSTS[0])


def test_a_key_file_is_for_its_owner_alone_and_comes_back(authority: Authority, tmp_path: Path) -> None:
    write_key(tmp_path / "ca.key", new_key())
    write_key(tmp_path / "ca.key", authority.key)
    (tmp_path / "ca.crt").write_text(pem_of(authority.certificate))

    read = read_authority(tmp_path / "ca.key", tmp_path / "ca.crt")

    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert read.certificate == authority.certificate
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None])
def test_a_damaged_or_foreign_key_is_refused_with_the_remedy(
    authority: Authority, tmp_path: Path, content: bytes | None
) -> None:
    (tmp_path / "ca.crt").write_text(pem_of(authority.certificate))
    if content is None:
        write_key(tmp_path / "ca.key", new_key())
    else:
        (tmp_path / "ca.key").write_bytes(content)

    with pytest.raises(ConfigError, match=r"ca\.key: .*Restore the folder keys from your backup"):
        read_authority(tmp_path / "ca.key", tmp_path / "ca.crt")


def test_a_missing_or_damaged_certificate_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca\.crt: it is missing.*Restore"):
        read_certificate_file(tmp_path / "ca.crt")
    (tmp_path / "ca.crt").write_text("garbage")
    with pytest.raises(ConfigError, match=r"ca\.crt: not a certificate.*Restore"):
        read_certificate_file(tmp_path / "ca.crt")
