"""A round's model gets a name, a complete card and a signature; it never changes, and may be withdrawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainunet import chain
from brainunet.cli import main as brainunet
from brainunet.errors import ConfigError
from brainunet.modelfile import SIGNED_AS, ModelCard, read_model, write_model
from brainunet.signing import read_public_key, verify_file
from brainunet_server import publishing
from brainunet_server.federation import Folder
from brainunet_server.start_model import sha256_of_file
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.writer import StoreWriter
from tests.support.federation import done, kinds, refused, told
from tests.support.published import complete_run
from tests.support.runs import RUN, around
from tests.support.simulation import run


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
def test_a_round_that_is_not_there_is_answered_with_those_that_are(ran: Path, arguments: list[str], words: str) -> None:
    assert words in refused(4, "publish", ran, "--name", "africa-1", *arguments)

    assert not list((ran / "published").glob("*"))
    assert "model-published" not in kinds(ran)


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
def test_a_name_that_would_not_do_for_a_file_is_refused(ran: Path, name: str) -> None:
    assert "--name" in refused(2, "publish", ran, "--round", "1", f"--name={name}")


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


def test_notes_that_could_steer_a_terminal_are_refused(ran: Path) -> None:
    assert "control characters" in refused(2, "publish", ran, "--round", "1", "--name", "a", "--notes", "x\x1b[2J")


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


@pytest.mark.slow  # of the writer alone: test_store.py
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


def test_where_the_first_model_is_gone_its_digest_still_tells_the_lineage(trained: Path) -> None:
    (trained / "models" / RUN.id / "round-000.safetensors").unlink()

    done("publish", trained, "--round", "1", "--name", "africa-1")

    release = card_of(trained, "africa-1").release
    assert release is not None
    with StoreReader(Folder(trained).store) as store:
        assert release.start.weights_sha256 == store.models(RUN.id)[0].digest
    assert release.start.title == "not there any more"
