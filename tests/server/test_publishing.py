"""A round's model gets a name, a complete card and a signature; it never changes, and may be withdrawn."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from brainunet import chain
from brainunet.cli import main as brainunet
from brainunet.errors import BrainUNetError, ConfigError
from brainunet.modelfile import SIGNED_AS, ModelCard, read_model, write_model
from brainunet.signing import read_public_key, verify_file
from brainunet_server import publishing
from brainunet_server.federation import Folder
from brainunet_server.start_model import sha256_of_file
from brainunet_server.status import hold_lock
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import DownloadRow
from brainunet_server.store.writer import StoreWriter
from tests.support.federation import done, kinds, refused, told
from tests.support.published import complete_run
from tests.support.rights import full_disk
from tests.support.runs import RUN, around
from tests.support.simulation import run
from tests.support.store import NOON


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def trained(fed: Path) -> Path:
    complete_run(fed)
    return fed


def card_of(fed: Path, name: str) -> ModelCard:
    return read_model(fed / "published" / f"{name}.safetensors")[1]


def test_what_is_published_is_the_rounds_model_signed_by_the_federation(trained: Path) -> None:
    said = told("publish", trained, "--round", "3", "--name", "africa-1")

    file = trained / "published" / "africa-1.safetensors"
    verify_file(file, read_public_key(Folder(trained).signing_public), SIGNED_AS)
    assert read_model(file)[0].digest == read_model(trained / "models" / RUN.id / "round-003.safetensors")[0].digest
    assert (said["release"], said["round"], said["file"]) == ("africa-1", 3, "published/africa-1.safetensors")
    assert said["sha256"] == sha256_of_file(file)
    assert said["bytes"] == file.stat().st_size
    entry = [entry for entry in chain.entries(trained / "audit.jsonl") if entry.kind == "model-published"]
    assert [line.data["sha256"] for line in entry] == [said["sha256"]]


def test_its_card_tells_where_it_comes_from_who_gave_to_it_and_how_good_it_is(trained: Path) -> None:
    done("publish", trained, "--round", "best", "--name", "africa-1", "--notes", "for 1.5 T scanners")

    card = card_of(trained, "africa-1")
    assert (card.round, card.run) == (1, RUN.id)  # the best by mean is neither the first nor the last
    assert card.release is not None
    assert card.release.federation == "Glioma Africa"
    assert card.release.start.title == "given"
    assert card.release.start.trained_on == "nothing"
    assert {name: part.rounds for name, part in card.release.sites.items()} == {"boston": 1, "lagos": 1}
    assert all(part.cases_train and part.cases_validation for part in card.release.sites.values())
    assert card.spends == {}
    assert sorted(card.scores) == ["boston", "lagos"]
    assert card.notes == "for 1.5 T scanners"
    assert card.config_sha256 == RUN.config_sha256
    assert "Research only" in card.intended_use


def test_model_show_tells_all_of_it_in_words(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from brainunet.commands.model_file import show

    done("publish", trained, "--round", "1", "--name", "africa-1")

    show(trained / "published" / "africa-1.safetensors")

    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "africa-1 by Glioma Africa" in said
    assert "none: every site trained without" in said
    assert "WT boston 0.650" in said  # the worst site


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--round", "9"], "no model of round 9, but expected a round whose model is there: 1, 2, 3"),
        (["--round", "0"], "round 0, the start model, which no hospital has trained"),
        (["--round", "1", "--run", "glioma-2"], "no run 'glioma-2'"),
    ],
)
def test_a_round_that_is_not_there_is_answered_with_those_that_are(trained: Path, arguments: list[str], words: str) -> None:
    assert words in refused(4, "publish", trained, "--name", "africa-1", *arguments)

    assert not list((trained / "published").glob("*"))
    assert "model-published" not in kinds(trained)


def test_a_model_that_was_removed_to_make_room_is_said_to_be(fed: Path) -> None:
    complete_run(fed, around(0.2, 0.3, 0.4, 0.5), keep_every=0)

    assert "the model of round 1 was removed to make room" in refused(4, "publish", fed, "--round", "1", "--name", "a")


def test_the_best_is_none_where_no_round_is_better_than_the_start(fed: Path) -> None:
    complete_run(fed, around(0.9, 0.3, 0.4, 0.5))

    assert "no round whose model scores higher" in refused(4, "publish", fed, "--round", "best", "--name", "a")


def test_a_new_federation_has_no_store_and_nothing_published(fed: Path) -> None:
    assert "nothing is published; next: flower-server publish" in done("models", fed)
    assert told("models", fed) == []
    assert "no run of a federation yet" in refused(4, "publish", fed, "--round", "best", "--name", "a")


def test_before_a_round_is_complete_there_is_nothing_to_publish(fed: Path) -> None:
    with StoreWriter(Folder(fed).store) as store:
        store.start_run(RUN)

    assert "no complete round" in refused(4, "publish", fed, "--round", "best", "--name", "a")


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "x" * 65, "-a"])
def test_a_name_that_would_not_do_for_a_file_is_refused(trained: Path, name: str) -> None:
    assert "--name" in refused(2, "publish", trained, "--round", "1", f"--name={name}")


def test_capitals_make_no_new_name(trained: Path) -> None:
    done("publish", trained, "--round", "1", "--name", "Africa-1")

    assert "Africa-1, which differs only in capitals" in refused(4, "publish", trained, "--round", "2", "--name", "africa-1")


def test_notes_are_text_and_never_markup(trained: Path) -> None:
    done("publish", trained, "--round", "1", "--name", "a", "--notes", "[bold]for[/bold] 1.5 T\nand more")

    shown = run(brainunet, "model", "show", trained / "published" / "a.safetensors").out
    assert "[bold]for[/bold] 1.5 T" in shown
    assert card_of(trained, "a").notes == "[bold]for[/bold] 1.5 T\nand more"


def test_the_longest_notes_of_the_widest_letters_fit_into_the_audit_trail(trained: Path) -> None:
    done("publish", trained, "--round", "1", "--name", "a", "--notes", "\U0001f9e0" * publishing.MAX_NOTES)
    assert "2001 characters" in refused(2, "publish", trained, "--round", "1", "--name", "b", "--notes", "x" * 2001)

    assert kinds(trained)[-1] == "model-published"


def test_notes_that_could_steer_a_terminal_are_refused(trained: Path) -> None:
    assert "control characters" in refused(2, "publish", trained, "--round", "1", "--name", "a", "--notes", "x\x1b[2J")


def test_a_release_never_changes(trained: Path) -> None:
    done("publish", trained, "--round", "1", "--name", "africa-1")
    before = sha256_of_file(trained / "published" / "africa-1.safetensors")

    assert "a release never changes" in refused(4, "publish", trained, "--round", "2", "--name", "africa-1")

    assert sha256_of_file(trained / "published" / "africa-1.safetensors") == before


def test_a_model_that_was_changed_on_the_disk_is_not_published(trained: Path) -> None:
    path = trained / "models" / RUN.id / "round-001.safetensors"
    weights, card = read_model(path)
    write_model(path, weights.plus(weights), card)

    assert "other weights than the store says" in refused(4, "publish", trained, "--round", "1", "--name", "a")


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

    assert card_of(trained, "africa-1").round == 2
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


def test_the_store_may_be_a_server_of_databases(fed: Path, tmp_path: Path, postgres_url: str) -> None:
    complete_run(fed, database=postgres_url)
    at = ("--database", postgres_url)

    done("publish", fed, "--round", "best", "--name", "africa-1", *at)
    done("withdraw", fed, "africa-1", "--reason", "worse at one site", *at)
    done("reader", "add", fed, "ann", "-o", tmp_path, *at)

    assert [(row["name"], row["round"], row["withdrawn_reason"]) for row in told("models", fed, *at)] == [
        ("africa-1", 1, "worse at one site")
    ]
    assert [row["name"] for row in told("reader", "list", fed, *at)] == ["ann"]
    assert not Folder(fed).store.exists()


def test_a_model_that_nobody_has_scored_is_published_with_a_note(trained: Path) -> None:
    with StoreWriter(Folder(trained).store) as store:
        store.rewind(RUN.id, last_model_round=3)  # as in the middle of a run: the last model is there, its scores are not

    assert "its card has no figures" in done("publish", trained, "--round", "3", "--name", "africa-1")
    assert "no figures" not in done("publish", trained, "--round", "2", "--name", "africa-2")

    assert card_of(trained, "africa-1").scores == {}  # of the file's own figures, which nobody has seen, none is taken
    assert {row["name"]: row["mean_wt_dice"] for row in told("models", trained)}["africa-1"] is None


def test_the_signature_of_before_a_new_key_is_known_by_the_earlier_key_alone(trained: Path) -> None:
    done("publish", trained, "--round", "1", "--name", "africa-1")
    earlier = read_public_key(Folder(trained).signing_public)

    assert "publish again, under a new name" in done("rotate", trained, "signing")

    file, now = trained / "published" / "africa-1.safetensors", read_public_key(Folder(trained).signing_public)
    verify_file(file, earlier, SIGNED_AS)
    with pytest.raises(ConfigError, match=f"a signature by key {earlier.id}, but expected one by key {now.id}"):
        verify_file(file, now, SIGNED_AS)
    done("publish", trained, "--round", "1", "--name", "africa-2")
    verify_file(trained / "published" / "africa-2.safetensors", now, SIGNED_AS)


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


def test_models_lists_the_releases_with_figures_and_downloads(trained: Path) -> None:
    assert "nothing is published; next: flower-server publish" in done("models", trained)
    done("publish", trained, "--round", "1", "--name", "africa-1")
    done("publish", trained, "--round", "3", "--name", "africa-2")
    with StoreWriter(Folder(trained).store) as store:
        store.add_download(DownloadRow(release="africa-1", who="lagos", kind="site", at=NOON, n_bytes=9, whole=True))
        store.add_download(DownloadRow(release="africa-1", who="ann", kind="reader", at=NOON, n_bytes=4, whole=False))

    rows = {row["name"]: row for row in told("models", trained)}

    assert rows["africa-1"]["downloads"] == 1
    assert rows["africa-1"]["mean_wt_dice"] == pytest.approx(0.7)
    assert rows["africa-1"]["worst_site"] == {"site": "boston", "wt_dice": pytest.approx(0.65)}
    assert rows["africa-2"]["downloads"] == 0
    shown = done("models", trained)
    assert "africa-2" in shown
    assert "withdrawn" not in shown


@pytest.mark.usefixtures("_narrow")
def test_a_narrow_terminal_takes_nothing_from_a_name(trained: Path) -> None:
    name = "africa-2026.1-for-scanners-of-1.5-tesla"
    done("publish", trained, "--round", "1", "--name", name)

    letters = "".join(re.findall(r"^│ (\S+)", done("models", trained), re.MULTILINE))
    assert letters == name


def test_a_withdrawn_release_says_why_and_its_name_is_never_used_again(trained: Path) -> None:
    done("publish", trained, "--round", "1", "--name", "africa-1")

    done("withdraw", trained, "africa-1", "--reason", "worse at one site")

    [row] = told("models", trained)
    assert row["withdrawn_reason"] == "worse at one site"
    assert "worse at" in done("models", trained)
    assert kinds(trained)[-1] == "model-withdrawn"
    assert "withdrawn on" in refused(4, "withdraw", trained, "africa-1", "--reason", "again")
    assert "no release of this name" in refused(4, "withdraw", trained, "africa-9", "--reason", "x")
    assert "--reason" in refused(2, "withdraw", trained, "africa-1", "--reason", " ")
    assert "a release of this name" in refused(4, "publish", trained, "--round", "2", "--name", "africa-1")


def test_where_the_first_model_is_gone_its_digest_still_tells_the_lineage(trained: Path) -> None:
    (trained / "models" / RUN.id / "round-000.safetensors").unlink()

    done("publish", trained, "--round", "1", "--name", "africa-1")

    release = card_of(trained, "africa-1").release
    assert release is not None
    with StoreReader(Folder(trained).store) as store:
        assert release.start.weights_sha256 == store.models(RUN.id)[0].digest
    assert release.start.title == "not there any more"
