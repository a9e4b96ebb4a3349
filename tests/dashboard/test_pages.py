"""Every page, drawn without a browser over a store in which everything happens; what it says when there is nothing yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from brainunet.modelfile import ModelCard, write_model
from brainunet.weights import Weights
from brainunet_dashboard import opened
from brainunet_dashboard.pages import PAGES
from brainunet_dashboard.source import Source
from brainunet_server.store.writer import StoreWriter
from tests.support.drawn import rows, went_well, words
from tests.support.watched import BEGAN, HOUR, MARKUP, a_model, a_run, answer, eventful, exchange_of, simulations

Show = Callable[..., AppTest]
NAMES = [page.show.__module__.rpartition(".")[2] for page in PAGES]


@pytest.fixture
def federation(database: Path) -> str:
    return eventful(database, now=datetime.now(UTC))


@pytest.mark.parametrize("page", NAMES)
def test_every_page_draws_everything_that_can_happen(page: str, show: Show, database: Path, federation: str) -> None:
    simulations(database)

    assert went_well(show(page, chosen=federation))
    assert went_well(show(page, chosen="sim-1"))


def test_the_federation_page_says_where_the_run_stands(show: Show, federation: str) -> None:
    said = words(show("federation"))

    for expected in (
        "Round: 7 of 8",
        "Strategy: fedavg",
        "Privacy: epsilon 8",
        "Online / late / lost: 2 / 0 / 1",
        "Run: running",
    ):
        assert expected in said
    assert "Worst: Lagos: 0.694 (n = 10)" in said
    assert "Sites falling: 1" in said
    assert "flower-server pause DIR" in said


def test_the_federation_page_switches_the_structure(show: Show, federation: str) -> None:
    test = show("federation")
    before = {row["site"]: row["value"] for row in rows(test)}

    test.segmented_control[0].set_value("ET").run()

    after = {row["site"]: row["value"] for row in rows(test)}
    assert after["CRV"] == pytest.approx(before["CRV"] + 2 * 0.04)  # see watched.curve


def test_the_structure_that_is_looked_at_is_kept_from_page_to_page(show: Show, federation: str) -> None:
    test = show("federation")
    test.segmented_control(key="structure").set_value("ET").run()

    assert test.session_state["structure"] == "ET"
    assert {page for page in NAMES if show(page).segmented_control} == {"federation", "scores", "compare"}
    assert {box.key for page in ("scores", "compare") for box in show(page).segmented_control} == {"structure"}


def test_the_table_of_a_round_follows_the_latest_one_until_a_round_is_chosen(show: Show, database: Path) -> None:
    with StoreWriter(database) as writer:
        writer.start_run(a_run())
        exchange_of(writer, "fed-1", 1)
        test = show("scores")
        assert "0, the latest" in test.selectbox(key="scores round").options
        first = rows(test)[0]["dice"]

        exchange_of(writer, "fed-1", 2)
        test.run()
        assert rows(test)[0]["dice"] > first

        test.selectbox(key="scores round").set_value(0).run()
        exchange_of(writer, "fed-1", 3)
        test.run()
        assert rows(test)[0]["dice"] == first


def test_what_a_site_did_last_is_a_round_of_training_and_not_the_scoring_of_the_last_model(show: Show, database: Path) -> None:
    simulations(database)
    test = show("sites", chosen="sim-1")

    assert [(row["round"], row["answers"]) for row in rows(test)] == [(3, 3)] * 3  # of 3 rounds, the 4th exchange only scores
    assert "After round 3, column 4 only scores its model" in words(test)


def test_runs_that_differ_from_the_start_are_not_compared_by_their_level(show: Show, database: Path) -> None:
    simulations(database)
    said = "The runs differ at round 0 already"
    assert said not in words(show("compare"))

    with StoreWriter(database) as writer:
        writer.start_run(a_run("sim-3", "simulation"))
        exchange_of(writer, "sim-3", 1, ("x", "y", "CRV", "NKDC"))
    test = show("compare")

    assert said in words(test)
    other = show("scores", chosen="sim-3")
    other.selectbox(key="scores other").set_value("sim-1").run()
    assert said in words(other)


def test_a_run_that_is_complete_can_be_published_and_not_paused(show: Show, database: Path, federation: str) -> None:
    with StoreWriter(database) as writer:
        writer.finish_run(federation, "completed")
    said = words(show("federation"))

    assert "flower-server publish DIR" in said
    assert "flower-server pause DIR" not in said


def test_a_withheld_figure_is_said_to_be_withheld(show: Show, federation: str) -> None:
    tiny = next(row for row in rows(show("federation")) if row["site"] == "tiny")

    assert tiny["note"] == "withheld: too few cases"
    assert tiny["value"] != tiny["value"]  # NaN: the table shows a dash and never 0


def test_where_every_site_withholds_its_figures_the_pages_say_so(show: Show, database: Path) -> None:
    with StoreWriter(database) as writer:
        writer.start_run(a_run())
        for k in (1, 2):
            writer.record_exchange("fed-1", k, [answer("fed-1", k, site, withheld=True, n=2) for site in ("A", "B")], [])
            writer.record_model(a_model("fed-1", k))
    test = show("federation")

    assert "No site tells a figure" in words(test)
    assert [(row["note"], row["n"]) for row in rows(test)] == [("withheld: too few cases", 2)] * 2
    assert "Dice WT, round 1" in test.dataframe[0].proto.columns  # as JSON
    assert "No site tells a figure" in words(show("scores"))
    assert went_well(show("models"))
    assert not show("models").get("plotly_chart")


def test_the_sites_page_warns_of_certificates_and_tells_refusals(show: Show, federation: str) -> None:
    test = show("sites")

    assert "certificate of CRV ends in 11 days" in words(test)
    assert "flower-server rotate DIR site CRV -o CRV.kit" in words(test)
    assert {row["outcome"] for row in rows(test, 1)} == {"fault", "late", "absent", "refused"}
    assert next(row for row in rows(test, 1) if row["outcome"] == "fault")["reason"] == "out of memory"


def test_the_scores_page_compares_with_each_site_alone_and_with_another_run(show: Show, database: Path) -> None:
    simulations(database)
    test = show("scores", chosen="sim-1")
    gains = rows(test, 1)

    assert [round(row["gain_over_alone"], 3) for row in gains] == [0.05] * 3
    other = next(box for box in test.selectbox if box.label == "Other run")
    other.set_value("sim-2").run()
    assert "In round 3 the mean over all cases of sim\\-2 is equal to that of sim\\-1." in words(test)


def test_the_scores_page_shows_distances_and_lesions(show: Show, federation: str) -> None:
    first = rows(show("scores"))[0]

    assert {"dice", "hd95_mm", "lesion_dice"} <= set(first)


def test_the_traffic_page_has_the_price_that_the_person_sets(show: Show, federation: str) -> None:
    test = show("traffic")
    assert "cost" not in rows(test, 1)[0]

    test.number_input[0].set_value(10.0).run()

    crv = next(row for row in rows(test, 1) if row["site"] == "CRV")
    assert crv["cost"] == pytest.approx(6 * 2 * 91.3e6 / 1e9 * 10)


def test_the_traffic_page_holds_no_cap_of_a_site(show: Show, federation: str) -> None:
    test = show("traffic")

    assert "A site's own cap never leaves the site" in words(test)
    assert not [name for name in rows(test)[0] if "cap" in name or "budget" in name]


def test_the_models_page_lists_releases_readers_and_the_run_they_came_from(show: Show, federation: str) -> None:
    test = show("models")
    own, releases, downloads, people, lineage = (rows(test, place) for place in range(5))

    assert [row["on_disk"] for row in own] == [True, True, True, True, False, False, True]
    assert {row["name"]: row["downloads"] for row in releases} == {"africa-2026.1": 2, "africa-2026.0": 0}
    assert releases[0]["state"] == "may be fetched"
    assert "withdrawn" in releases[1]["state"]
    assert len(downloads) == 3
    assert {row["who"] for row in people if not row["may"]} == {"gone", "old"}
    assert lineage[0]["began_with"] == "a model from outside of this store"


def test_the_card_of_a_release_is_shown_and_can_be_downloaded(
    show: Show, database: Path, tmp_path: Path, federation: str
) -> None:
    card = {"title": "africa <b>", "model": {"preset": "brainunet-nano"}, "preprocess": {}, "provenance": "x"}
    path = tmp_path / "published" / "africa-2026.1.safetensors"
    write_model(path, Weights.of({"w": [1.0]}), ModelCard.model_validate({**card, "trained_on": "phantoms"}))
    test = show("models", Source(database, tmp_path))
    picked = next(box for box in test.selectbox if box.label == "Card of a release")

    picked.set_value("africa-2026.1").run()

    assert "africa \\<b\\>" in words(test)
    assert "Trained on: phantoms" in words(test)
    assert "signing.pub" in test.error[0].value.replace("\\", "")  # no key to check it by: never called genuine
    assert [button.proto.label for button in test.get("download_button")] == ["Download this card (JSON)"]


def test_what_the_server_says_of_the_round_in_progress_is_shown(
    show: Show, database: Path, tmp_path: Path, federation: str
) -> None:
    now = datetime.now(UTC)
    said = {
        "state": "running",
        "message": "round 7: waiting for CRV, <i>NKDC</i>",
        "run": federation,
        "deadline_at": (now + 2 * HOUR).isoformat(),
        "updated_at": now.isoformat(),
        "sites": [],
    }
    (tmp_path / "status.json").write_text(json.dumps(said))
    test = show("federation", Source(database, tmp_path))

    assert "running, round 7: waiting for CRV" in words(test).replace("\\", "")
    left = next(metric for metric in test.metric if metric.label == "Time left")
    assert "waits for replies until" in left.proto.help


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"state": 7}', '{"run": "fed-1", "updated_at": "yesterday"}'])
def test_a_damaged_status_is_left_out(damaged: str, show: Show, database: Path, tmp_path: Path, federation: str) -> None:
    (tmp_path / "status.json").write_text(damaged)

    assert went_well(show("federation", Source(database, tmp_path)))


def test_runs_are_compared_with_their_partition_and_each_site_alone(show: Show, database: Path) -> None:
    simulations(database)
    two, one = rows(show("compare"))

    assert (one["strategy"], one["partition"], round(one["last"] - one["alone"], 3)) == ("fedavg", "iid", 0.05)
    assert one["gain"] == pytest.approx(one["last"] - one["start"])
    assert (two["strategy"], two["partition"]) == ("fedprox", "dirichlet, alpha 0.5")


@pytest.mark.parametrize("page", [name for name in NAMES if name != "audit"])
def test_an_empty_store_says_what_to_do_next(page: str, show: Show, database: Path) -> None:
    with StoreWriter(database):
        pass
    test = show(page)

    assert went_well(test)
    assert "No run yet" in words(test)
    assert test.code[0].value.startswith(("flower-server run DIR", "brainunet-simulate --phantom"))


@pytest.mark.slow
@pytest.mark.parametrize("page", NAMES)
def test_a_run_that_has_only_begun_is_no_problem(page: str, show: Show, database: Path) -> None:
    with StoreWriter(database) as writer:
        writer.start_run(a_run())
    test = show(page)

    assert went_well(test)
    assert words(test).count("yet") or page in ("audit", "compare")


@pytest.mark.parametrize("page", NAMES)
def test_names_with_markup_stay_names(page: str, show: Show, database: Path) -> None:
    with StoreWriter(database) as writer:
        run = replace(a_run(), id=MARKUP, strategy=MARKUP, preset="<script>alert(1)</script>")
        writer.start_run(run)
        for k in (1, 2, 3):
            exchange_of(writer, MARKUP, k, (MARKUP, "plain"))
    test = show(page)

    assert went_well(test)
    for part in [*test.markdown, *test.caption, *test.info, *test.warning, *test.metric]:
        shown = str(getattr(part, "label", "")) + str(part.value)
        assert "<b>" not in shown.replace("\\<b\\>", "")
        assert "<script>" not in shown.replace("\\<script\\>", "")


def test_no_cell_of_a_table_that_somebody_saves_is_a_formula(show: Show, database: Path) -> None:
    with StoreWriter(database) as writer:
        writer.start_run(a_run())
        told = replace(answer("fed-1", 1, "=1+1"), client_version='=HYPERLINK("http://evil.example")')
        writer.record_exchange("fed-1", 1, [told], [])

    (row,) = rows(show("sites"))
    assert (row["site"], row["version"][:2]) == ("'=1+1", "'=")


def test_the_chosen_run_is_kept_from_page_to_page(show: Show, database: Path) -> None:
    simulations(database)
    test = show("scores")
    test.selectbox[0].set_value("sim-1").run()

    assert test.session_state["chosen run"] == "sim-1"
    assert rows(show("sites", chosen="sim-1"))


def test_a_run_that_was_deleted_while_it_was_shown_is_said_to_be_gone(show: Show, database: Path, federation: str) -> None:
    test = show("federation", chosen="deleted-run")

    assert went_well(test)
    assert "deleted\\-run is no longer in the store" in words(test)
    assert "Round: 7 of 8" in words(test)


def test_commands_hold_names_that_no_shell_reads_as_more(show: Show, database: Path, tmp_path: Path, federation: str) -> None:
    folder = tmp_path / "fed; rm -rf ~"
    test = show("federation", Source(database, folder))

    assert f"flower-server pause '{folder}'" in words(test)


def test_the_app_has_every_page_in_its_menu(database: Path, monkeypatch: pytest.MonkeyPatch, federation: str) -> None:
    monkeypatch.setattr(opened, "source", Source(database))

    test = AppTest.from_string("from brainunet_dashboard.app import main\nmain()", default_timeout=60).run()

    assert went_well(test)
    assert test.title[0].value == "Federation"


def test_without_a_source_the_app_says_how_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "source", None)

    test = AppTest.from_string("from brainunet_dashboard.app import main\nmain()", default_timeout=60).run()

    assert "brainunet-dashboard DIR" in test.error[0].value


def test_times_are_told_with_their_zone(show: Show, federation: str) -> None:
    del federation
    said: Any = words(show("federation"))

    assert f"begun {BEGAN:%Y-%m-%d %H:%M}+00:00" in said
