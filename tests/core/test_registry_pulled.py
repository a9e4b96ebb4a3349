"""What was pulled is remembered for programs without a network, and who may pull is known from a kit or a pass."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from brainunet import home_folder
from brainunet.certificates import new_site_key, write_site_key
from brainunet.errors import BrainUNetError, ConfigError, FederationError, UsageError
from brainunet.folders import FolderKind, hold_folder
from brainunet.kit import seal
from brainunet.registry.access import access_by
from brainunet.registry.choosing import chosen, place_of
from brainunet.registry.keep import digest_of
from brainunet.registry.pulled import (
    PulledModel,
    all_pulled,
    last_pulled,
    mark_withdrawn,
    no_longer_listed,
    remember,
    withdrawn_file,
)
from brainunet.registry.records import Release
from tests.support.health import Federation
from tests.support.registries import Publisher
from tests.support.rights import full_disk

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("publisher"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def model(home: Path, name: str = "v1", content: bytes = b"weights", federation: str = "glioma") -> PulledModel:
    path = home / home_folder.MODELS / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return PulledModel(name=name, file=str(path), federation=federation, sha256=digest_of(path), run="r", round=3, pulled_at=AT)


def test_the_last_model_is_the_one_that_was_pulled_last(home: Path) -> None:
    assert last_pulled(home) is None
    first, second = model(home), model(home, "v2", b"other")
    remember(home, first)
    remember(home, second)
    assert last_pulled(home) == second

    remember(home, first)  # pulled again, though it was there
    assert last_pulled(home) == first
    assert all_pulled(home) == (second, first)


def test_a_model_that_gave_its_name_to_another_is_remembered_where_it_lies_now(home: Path) -> None:
    first = model(home, "mine")
    remember(home, first)
    aside = first.path.with_name("mine.12345678.safetensors")
    first.path.rename(aside)
    second = model(home, "mine", b"newer").model_copy(update={"name": "v2"})

    remember(home, second, aside)

    assert [(one.name, one.path) for one in all_pulled(home)] == [("mine", aside), ("v2", second.path)]
    assert all(one.verified() for one in all_pulled(home))
    remember(home, model(home, "mine", b"newest"))  # what had the name is gone
    assert [one.name for one in all_pulled(home)] == ["mine", "mine"]


def test_a_file_that_was_changed_or_removed_is_found_when_it_is_needed(home: Path) -> None:
    pulled = model(home)
    remember(home, pulled)
    assert pulled.verified() == pulled.path
    pulled.path.write_bytes(b"wEights")
    assert last_pulled(home) == pulled  # nothing is read for that
    with pytest.raises(ConfigError, match=r"changed since it was pulled, .* brainunet pull --name v1"):
        pulled.verified()
    pulled.path.unlink()
    with pytest.raises(ConfigError, match="brainunet pull --name v1"):
        pulled.verified()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "brainunet-pulled-9"}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_list_is_refused_with_a_remedy(home: Path, content: bytes) -> None:
    remember(home, model(home))
    (home / home_folder.MODELS / home_folder.PULLED).write_bytes(content)

    with pytest.raises(ConfigError, match="Remove it and pull again"):
        last_pulled(home)


def test_a_device_or_a_pipe_is_no_place_for_a_model(tmp_path: Path) -> None:
    release = Release(
        name="v1",
        run="r",
        round=1,
        size_bytes=1,
        sha256="00" * 32,
        weights_sha256="00" * 32,
        published_at=AT,
    )
    os.mkfifo(tmp_path / "pipe")
    for place in (Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(UsageError, match="a pipe or a device, but expected a file or a folder"):
            place_of(release, tmp_path, place)


def _remember_ten(home: Path, who: int) -> None:
    for number in range(10):
        remember(home, model(home, f"v{who}-{number}", bytes([who, number])))


def test_pulls_at_once_lose_no_line(home: Path) -> None:
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=_remember_ten, args=(home, who)) for who in range(3)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert sorted(known.name for known in all_pulled(home)) == sorted(f"v{w}-{n}" for w in range(3) for n in range(10))
    assert not list(home.rglob("*.part"))


def test_a_pull_waits_for_another_s_line_and_clears_what_a_killed_one_left(home: Path) -> None:
    first = model(home)
    remember(home, first)
    left = home / home_folder.MODELS / ".pulled.json.0123abcd.part"
    left.touch()
    with hold_folder(home / home_folder.MODELS, FolderKind("pull", frozenset(), "", ())):
        waiting = threading.Thread(target=remember, args=(home, model(home, "v2", b"other")))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert all_pulled(home) == (first,)
    waiting.join(20)
    assert [known.name for known in all_pulled(home)] == ["v1", "v2"]
    assert not left.exists()


def test_a_list_that_changes_nothing_needs_no_right_to_write(home: Path) -> None:
    remember(home, model(home))
    with hold_folder(home / home_folder.MODELS, FolderKind("pull", frozenset(), "", ())):
        assert mark_withdrawn(home, "glioma", {"00" * 32: "another"}) == ()


def test_a_withdrawn_model_is_known_by_its_bytes_under_any_name(home: Path, tmp_path: Path) -> None:
    mine, other = model(home), model(home, "v2", b"other")
    remember(home, mine)
    remember(home, other)
    copy = tmp_path / "copy.safetensors"
    shutil.copy(mine.path, copy)
    assert withdrawn_file(home, copy) is None
    mark_withdrawn(home, "glioma", {mine.sha256: "left and right swapped", other.sha256: None})

    found = withdrawn_file(home, copy)
    assert found is not None
    assert (found.name, found.withdrawn) == ("v1", "left and right swapped")
    assert withdrawn_file(home, other.path) is None
    assert withdrawn_file(home, tmp_path / "nowhere") is None
    assert withdrawn_file(home, tmp_path) is None


def test_a_withdrawal_is_written_down_for_those_who_have_no_network(home: Path) -> None:
    mine, theirs = model(home), model(home, "v1-of-others", federation="others")
    gone = model(home, "v0", b"old")
    for one in (gone, mine, theirs):
        remember(home, one)
    gone.path.unlink()

    here = mark_withdrawn(home, "glioma", {mine.sha256: "left and right swapped", gone.sha256: "older", "00" * 32: None})

    assert [(one.name, one.withdrawn) for one in here] == [("v1", "left and right swapped")]  # v0 is not here any more
    assert [one.withdrawn for one in all_pulled(home)] == ["older", "left and right swapped", None]


def test_a_list_without_the_model_that_was_pulled_last_is_one_of_before(home: Path) -> None:
    assert no_longer_listed(home, "glioma", {"00" * 32}) is None
    first, second = model(home), model(home, "v2", b"other")
    for one in (first, second, model(home, "theirs", b"theirs", "others")):
        remember(home, one)

    assert no_longer_listed(home, "glioma", {first.sha256}) == second
    assert no_longer_listed(home, "glioma", {first.sha256, second.sha256}) is None


def test_nothing_is_made_where_nothing_was_pulled(home: Path) -> None:
    assert mark_withdrawn(home, "glioma", {"00" * 32: "old"}) == ()
    assert not home.exists()


def test_a_full_disk_leaves_the_earlier_list(home: Path) -> None:
    with full_disk(16) as small:
        first = model(small)
        remember(small, first)
        (small / "filler").write_bytes(bytes(shutil.disk_usage(small).free))
        with pytest.raises(BrainUNetError, match="Free space"):
            remember(small, first.model_copy(update={"name": "v2"}))
        assert last_pulled(small) == first


def release(name: str, withdrawn: str | None = None) -> Release:
    digest = "ab" * 32
    told = {"run": "r", "round": 1, "size_bytes": 1, "sha256": digest, "weights_sha256": digest, "published_at": AT}
    return Release.model_validate({"name": name, "withdrawn": withdrawn, **told})


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
