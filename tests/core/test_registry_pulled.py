"""What was pulled is remembered for programs without a network, with what is known to be withdrawn of it."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from brainunet import home_folder
from brainunet.errors import BrainUNetError, ConfigError
from brainunet.folders import FolderKind, hold_folder
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
from tests.support.rights import full_disk

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


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
