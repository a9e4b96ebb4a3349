"""Publishing that is killed, meets a full disk or another that publishes: nothing half, and the same call again ends it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from brainunet.errors import BrainUNetError, ConfigError
from brainunet.modelfile import SIGNED_AS, read_model
from brainunet.signing import read_public_key, verify_file
from brainunet_server import publishing
from brainunet_server.federation import Folder
from brainunet_server.start_model import sha256_of_file
from brainunet_server.status import hold_lock
from brainunet_server.store.writer import StoreWriter
from tests.support.federation import done, kinds, refused, told
from tests.support.rights import full_disk


def test_what_a_kill_left_is_taken_up_when_the_command_is_repeated(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: StoreWriter, release: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "add_release", killed)
        with pytest.raises(KeyboardInterrupt):
            publishing.publish(Folder(trained), 1, "africa-1")
    file = trained / "published" / "africa-1.safetensors"
    before = sha256_of_file(file)
    assert told("models", trained) == []
    assert "a signed model of this name, of round 1" in refused(4, "publish", trained, "--round", "2", "--name", "africa-1")

    done("publish", trained, "--round", "1", "--name", "africa-1")

    [row] = told("models", trained)
    assert (row["round"], row["sha256"]) == (1, before)
    assert sha256_of_file(file) == before
    assert kinds(trained).count("model-published") == 1


@pytest.mark.parametrize("left", ["the signature alone", "a file without one", "a file that was cut short"])
def test_half_of_a_release_is_overwritten(trained: Path, left: str) -> None:
    done("publish", trained, "--round", "1", "--name", "other")
    folder = trained / "published"
    file, signature = folder / "africa-1.safetensors", folder / "africa-1.safetensors.sig"
    signature.write_bytes((folder / "other.safetensors.sig").read_bytes())
    if left != "the signature alone":
        file.write_bytes((folder / "other.safetensors").read_bytes()[: -9 if "cut" in left else None])
    if left == "a file without one":
        signature.unlink()

    done("publish", trained, "--round", "2", "--name", "africa-1")

    assert read_model(file)[1].round == 2
    verify_file(file, read_public_key(Folder(trained).signing_public), SIGNED_AS)


def test_another_release_that_was_copied_under_a_name_is_not_taken_for_it(trained: Path) -> None:
    done("publish", trained, "--round", "1", "--name", "other")
    folder = trained / "published"
    for end in ("", ".sig"):
        (folder / f"africa-1.safetensors{end}").write_bytes((folder / f"other.safetensors{end}").read_bytes())

    assert "a signed model of this name" in refused(4, "publish", trained, "--round", "1", "--name", "africa-1")


def test_a_folder_that_cant_be_written_leaves_nothing(trained: Path) -> None:
    (trained / "published").write_text("in the way")

    with pytest.raises(BrainUNetError, match="can't be written"):
        publishing.publish(Folder(trained), 1, "africa-1")

    assert told("models", trained) == []
    assert "model-published" not in kinds(trained)


def test_a_full_disk_leaves_nothing_and_the_command_can_be_repeated(trained: Path) -> None:
    with full_disk(64) as disk:
        (trained / "published").symlink_to(disk)
        (disk / "others").write_bytes(b"x" * (64 * 1024 - 4096))  # the folder itself takes no page

        assert "No space left on device" in refused(1, "publish", trained, "--round", "1", "--name", "africa-1")

        assert [path.name for path in disk.iterdir()] == ["others"]
        assert told("models", trained) == []
        assert "model-published" not in kinds(trained)
        (disk / "others").unlink()
        done("publish", trained, "--round", "1", "--name", "africa-1")
        assert [row["name"] for row in told("models", trained)] == ["africa-1"]


def test_a_model_is_published_while_the_federation_is_served(trained: Path) -> None:
    with hold_lock(Folder(trained)):
        done("publish", trained, "--round", "1", "--name", "africa-1")
        done("withdraw", trained, "africa-1", "--reason", "a better one is there")

    assert kinds(trained)[-2:] == ["model-published", "model-withdrawn"]


def test_of_two_that_publish_one_name_at_once_one_is_refused(trained: Path) -> None:
    ends: list[str] = []

    def one(round_number: int) -> None:
        try:
            publishing.publish(Folder(trained), round_number, "africa-1")
            ends.append("published")
        except ConfigError:
            ends.append("refused")

    both = [threading.Thread(target=one, args=(number,)) for number in (1, 2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()

    assert sorted(ends) == ["published", "refused"]
    verify_file(trained / "published" / "africa-1.safetensors", read_public_key(Folder(trained).signing_public), SIGNED_AS)
