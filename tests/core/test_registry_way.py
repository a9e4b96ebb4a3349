"""What keeps a machine from a registry is told from what keeps the registry; a proxy or a bad line keeps nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from brainunet.errors import FederationError
from brainunet.registry import way
from brainunet.registry.agreed import CHUNK_BYTES, prepare_grpc
from brainunet.registry.client import Registry
from brainunet.registry.troubles import Passing
from tests.support.authority import new_authority
from tests.support.false_registry import FalseRegistry, access_to, pull_from, registry, standing
from tests.support.health import Federation, federation, no_proxy_of_this_machine, talking
from tests.support.proxy import tunnel
from tests.support.raw_line import RawLine
from tests.support.running import free_port

__all__ = ["federation", "no_proxy_of_this_machine", "registry"]  # fixtures

pytestmark = pytest.mark.usefixtures("no_proxy_of_this_machine")


class TestTheWay:
    """What keeps this machine from a registry is told from what keeps the registry."""

    def said(self, port: int, federation: Federation) -> tuple[str, type[FederationError]]:
        with Registry(access_to(port, federation)) as asked, pytest.raises(FederationError) as refused:
            asked.listing()
        return str(refused.value), type(refused.value)

    def test_a_server_of_another_authority(self, registry: FalseRegistry, federation: Federation) -> None:
        with standing(registry, Federation(new_authority("Hospital Web Filter"))) as port:
            said, kind = self.said(port, federation)
        assert "the certificate of the server was not issued by this federation's authority" in said
        assert kind is FederationError  # waiting is no use

    def test_another_authority_of_the_same_name(self, registry: FalseRegistry, federation: Federation) -> None:
        with standing(registry, Federation()) as port:
            said, _ = self.said(port, federation)
        assert "was not issued by this federation's authority" in said

    def test_a_certificate_for_another_host(self, registry: FalseRegistry, federation: Federation) -> None:
        with standing(registry, federation, hosts=("fl.example.org",)) as port:
            said, kind = self.said(port, federation)
        assert "the certificate of the server is for another name" in said
        assert kind is FederationError

    @pytest.mark.parametrize(("start", "end", "words"), [(-9, -2, "has expired"), (2, 9, "is not valid yet")])
    def test_a_clock_that_is_off_or_a_certificate_that_is_old(
        self, registry: FalseRegistry, federation: Federation, start: float, end: float, words: str
    ) -> None:
        with standing(registry, federation, start=start, end=end) as port:
            said, kind = self.said(port, federation)
        assert f"the certificate of the server {words}, and this computer's clock says 20" in said
        assert "Correct the clock of this computer if it is wrong" in said
        assert kind is FederationError

    def test_nobody_listens(self, federation: Federation) -> None:
        said, kind = self.said(port := free_port(), federation)
        assert f"127.0.0.1:{port}: it does not answer (connection refused). Ask the coordinator whether" in said
        assert kind is Passing

    def test_a_name_that_nobody_has(self, federation: Federation) -> None:
        access = replace(access_to(1, federation), server="nowhere.invalid:8445")
        with Registry(access) as asked, pytest.raises(Passing, match=r"the address of nowhere\.invalid can't be found"):
            asked.listing()

    def test_something_else_answers(self, federation: Federation) -> None:
        with talking(b"220 mail.example.org ESMTP\r\n") as port:
            said, kind = self.said(port, federation)
        assert "something answers there that is no registry of models. Check the port" in said
        assert kind is FederationError

    def test_a_line_that_takes_a_connection_and_ends_it_at_once(self, federation: Federation) -> None:
        with talking(b"") as port:
            said, kind = self.said(port, federation)
        assert "it hangs up" in said
        assert kind is Passing  # as where a registry is being started anew behind a proxy

    def test_a_line_that_is_cut_before_a_word(self, registry: FalseRegistry, federation: Federation) -> None:
        with standing(registry, federation) as port, RawLine(port) as line:
            line.cut_at(*range(100_000))  # after each first piece
            said, kind = self.said(line.port, federation)
        assert "hangs up" in said
        assert kind is Passing


def test_a_proxy_of_the_environment_is_gone_through_and_its_refusal_told(
    registry: FalseRegistry, federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing(registry, federation) as port:
        with tunnel() as proxy:
            monkeypatch.setenv("https_proxy", f"http://jane:secret@127.0.0.1:{proxy}")
            assert pull_from(port, federation, tmp_path / "pulled.safetensors").read_bytes() == registry.content
            assert way.look(f"127.0.0.1:{port}", federation.authority.ca_pem) is None
        with tunnel(refuses=407) as proxy:
            monkeypatch.setenv("https_proxy", f"http://jane:secret@127.0.0.1:{proxy}")
            with Registry(access_to(port, federation)) as asked, pytest.raises(FederationError) as refused:
                asked.listing()
            said = str(refused.value)
            assert f"the proxy 127.0.0.1:{proxy} does not let through to 127.0.0.1:{port} (407" in said
            assert "secret" not in said
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            with Registry(access_to(port, federation)) as asked:
                assert asked.listing().releases
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free_port()}")
        with (
            Registry(access_to(port, federation)) as asked,
            pytest.raises(Passing, match=r"the proxy 127\.0\.0\.1:\d+ does not"),
        ):
            asked.listing()


def test_capital_names_of_the_proxy_do_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("https_proxy", "")
    monkeypatch.delenv("https_proxy")

    prepare_grpc()

    proxy = way.proxy_to("fl.example.org")
    assert proxy is not None
    assert (proxy.hostname, proxy.port) == ("proxy.example.org", 3128)


def test_a_line_that_is_cut_ten_times_brings_every_byte_and_loses_less_than_a_chunk_each_time(
    registry: FalseRegistry, federation: Federation, tmp_path: Path
) -> None:
    with standing(registry, federation) as port, RawLine(port, rate=20e6) as line:
        size = len(registry.content)
        line.cut_at(*(size * number // 11 for number in range(1, 11)))
        pull_from(line.port, federation, tmp_path / "pulled.safetensors", patience_s=100)

        assert (tmp_path / "pulled.safetensors").read_bytes() == registry.content
        assert line.connections > 10
        again = line.down - size - 10_000 * line.connections  # what encryption and its beginning take
        assert again < 10 * CHUNK_BYTES
