"""Which release is fetched, where it is put, and by what right it is asked for."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from brainunet import home_folder
from brainunet.certificates import new_site_key, write_site_key
from brainunet.errors import ConfigError, FederationError, UsageError
from brainunet.kit import seal
from brainunet.registry.access import access_by
from brainunet.registry.choosing import chosen, place_of
from brainunet.registry.records import Release
from tests.support.health import Federation
from tests.support.registries import Publisher

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("publisher"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def release(name: str, withdrawn: str | None = None) -> Release:
    digest = "ab" * 32
    told = {"run": "r", "round": 1, "size_bytes": 1, "sha256": digest, "weights_sha256": digest, "published_at": AT}
    return Release.model_validate({"name": name, "withdrawn": withdrawn, **told})


def test_a_device_or_a_pipe_is_no_place_for_a_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(UsageError, match="a pipe or a device, but expected a file or a folder"):
            place_of(release("v1"), tmp_path, place)


class TestChoosing:
    def test_the_newest_that_was_not_withdrawn(self) -> None:
        releases = [release("model-v3", "wrong"), release("v2"), release("v1")]

        assert chosen(releases, None).name == "v2"
        assert chosen(releases, "v1").name == "v1"
        with pytest.raises(FederationError, match=r"model-v3: the federation has withdrawn it: wrong\. The newest is v2"):
            chosen(releases, "model-v3")
        with pytest.raises(FederationError, match=r"no release 'model-v33' \(did you mean model-v3\?\), but"):
            chosen(releases, "model-v33")

    def test_nothing_to_choose_from(self) -> None:
        with pytest.raises(FederationError, match="nothing was published yet"):
            chosen([], None)
        with pytest.raises(FederationError, match="every release was withdrawn"):
            chosen([release("v1", "wrong")], None)

    def test_where_it_goes(self, tmp_path: Path, home: Path) -> None:
        assert place_of(release("v1"), home, None) == home / "models" / "v1.safetensors"
        assert place_of(release("v1"), home, tmp_path) == tmp_path / "v1.safetensors"
        assert place_of(release("v1"), home, tmp_path / "mine") == tmp_path / "mine"
        with pytest.raises(UsageError, match="no folder"):
            place_of(release("v1"), home, tmp_path / "nowhere" / "mine")


class TestAccess:
    def test_a_site_s_kit_and_a_pass_know_where_the_registry_is_and_whom_to_trust(self, publisher: Publisher) -> None:
        site = access_by(None, publisher.site("lagos"))
        assert (site.server, site.federation, site.who, site.token) == ("127.0.0.1:8444", "Glioma Africa", "site lagos", "")
        reader = access_by(publisher.reader("jane"), publisher.root)
        assert (reader.server, reader.who, reader.certificate, reader.key) == ("127.0.0.1:8445", "reader jane", "", b"")
        assert site.signing_key == reader.signing_key
        assert site.ca_certificate == reader.ca_certificate

    def test_another_server_changes_whom_to_ask_and_not_whom_to_trust(self, publisher: Publisher) -> None:
        reader_pass = publisher.reader("john")
        other = access_by(reader_pass, publisher.root, "[::1]:9")
        assert other.server == "[::1]:9"
        assert other.signing_key == access_by(reader_pass, publisher.root).signing_key
        with pytest.raises(UsageError, match="--server: a server 'x'"):
            access_by(reader_pass, publisher.root, "x")

    def test_secrets_stay_out_of_what_is_shown(self, publisher: Publisher) -> None:
        reader = access_by(publisher.reader("joan"), publisher.root)
        site = access_by(None, publisher.site("abuja"))
        assert reader.token not in repr(reader)
        assert "PRIVATE" not in repr(site)

    def test_nothing_to_ask_with(self, publisher: Publisher, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no kit, .* --kit FILE; or name the client's folder by --home DIR"):
            access_by(None, tmp_path)
        home = publisher.site("kano")
        with pytest.raises(ConfigError, match=r"no key \(site\.key\), but expected the key of the site kano"):
            access_by(home / home_folder.KIT, tmp_path)
        write_site_key(tmp_path / home_folder.KEY, new_site_key())
        with pytest.raises(ConfigError, match="was made for another key"):
            access_by(home / home_folder.KIT, tmp_path)

    def test_a_pipe_is_not_waited_for(self, publisher: Publisher, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ConfigError, match="pipe: a pipe, but expected the file that the coordinator sent"):
            access_by(tmp_path / "pipe", publisher.root)

    def test_a_pass_that_has_expired_or_was_edited_is_refused_before_anything_is_asked(self, publisher: Publisher) -> None:
        with pytest.raises(ConfigError, match="the pass of late has expired"):
            access_by(publisher.reader("late", days=-1), publisher.root)
        reader_pass = publisher.reader("edited")
        reader_pass.write_text(reader_pass.read_text().replace('"127.0.0.1:8445"', '"evil.example.org:8445"'))
        with pytest.raises(ConfigError, match="damaged on the way"):
            access_by(reader_pass, publisher.root)

    def test_a_kit_of_an_earlier_version_says_what_to_try(self, tmp_path: Path) -> None:
        federation, key = Federation(), new_site_key()
        write_site_key(tmp_path / home_folder.KEY, key)
        kit = federation.kit("fl.example.org:8443", key)
        (tmp_path / home_folder.KIT).write_bytes(seal(kit, federation.signing_key))

        with pytest.raises(ConfigError, match=r"names no registry.* try --server fl\.example\.org:8444"):
            access_by(None, tmp_path)
        assert access_by(None, tmp_path, "fl.example.org:8444").server == "fl.example.org:8444"

    def test_a_kit_that_has_expired_is_told_with_the_clock(self, publisher: Publisher) -> None:
        with pytest.raises(ConfigError, match="this computer's clock says"):
            access_by(None, publisher.site("jos"), now=datetime.now(UTC) + timedelta(days=4000))
