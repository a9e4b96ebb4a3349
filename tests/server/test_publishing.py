"""A round's model gets a name, a complete card and a signature; it never changes, and may be withdrawn."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from brainunet import chain
from brainunet.errors import BrainUNetError, ConfigError
from brainunet.modelfile import SIGNED_AS, ModelCard, read_model, write_model
from brainunet.signing import read_public_key, verify_file
from brainunet_server import publishing
from brainunet_server.federation import Folder
from brainunet_server.start_model import sha256_of_file
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import DownloadRow
from brainunet_server.store.writer import StoreWriter
from tests.support.federation import done, kinds, refused, told
from tests.support.published import complete_run
from tests.support.runs import RUN, around
from tests.support.store import NOON


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
    assert all(part.cases_train > 0 and part.spend is None for part in card.release.sites.values())
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


def test_before_a_round_is_complete_there_is_nothing_to_publish(fed: Path) -> None:
    with StoreWriter(Folder(fed).store) as store:
        store.start_run(RUN)

    assert "no complete round" in refused(4, "publish", fed, "--round", "best", "--name", "a")


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "x" * 65, "-a"])
def test_a_name_that_would_not_do_for_a_file_is_refused(trained: Path, name: str) -> None:
    assert "--name" in refused(2, "publish", trained, "--round", "1", f"--name={name}")


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


def test_what_a_kill_left_is_overwritten_when_the_command_is_repeated(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: StoreWriter, release: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "add_release", killed)
        with pytest.raises(KeyboardInterrupt):
            publishing.publish(Folder(trained), 1, "africa-1")
    assert told("models", trained) == []

    done("publish", trained, "--round", "2", "--name", "africa-1")

    assert card_of(trained, "africa-1").round == 2
    verify_file(trained / "published" / "africa-1.safetensors", read_public_key(Folder(trained).signing_public), SIGNED_AS)


def test_a_folder_that_cant_be_written_leaves_nothing(trained: Path) -> None:
    (trained / "published").write_text("in the way")

    with pytest.raises(BrainUNetError, match="can't be written"):
        publishing.publish(Folder(trained), 1, "africa-1")

    assert told("models", trained) == []
    assert "model-published" not in kinds(trained)


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
    assert "africa-2" in done("models", trained)


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
