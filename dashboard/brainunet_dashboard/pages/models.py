"""Where models come from, what was published, and who may fetch it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from brainunet.modelfile import ModelCard
from brainunet_dashboard.cards import FoundCard, release_card, round_card
from brainunet_dashboard.charts.models import lineage_chart
from brainunet_dashboard.frame import View, chart, chosen_run, empty, ink, live, moment, name_of, number, table, text, tick
from brainunet_dashboard.queries import figures, models
from brainunet_dashboard.queries.runs import main_runs
from brainunet_dashboard.words import in_shell, plain, visible
from brainunet_server.store.reader import Model, ReleaseRow, Run


def show() -> None:
    st.title("Models")
    live(_body)


def _body(view: View) -> None:
    run = chosen_run(view)
    if run is None:
        return
    own, releases = view.feed.models(run.id), view.feed.releases()
    _rounds(view, run, own, releases)
    _releases(view, run, releases)
    _readers(view)
    _lineage(view, releases)


def _rounds(view: View, run: Run, own: Sequence[Model], releases: Sequence[ReleaseRow]) -> None:
    st.subheader("Models of this run")
    if not own:
        empty("No model yet: the first is saved when the run begins.")
        return
    means = figures.means_of_regions(view.feed.figures(run.id))
    rows = models.model_table(own, means, releases)
    if any(row["mean_dice"] is not None for row in rows):
        chart(
            lineage_chart(rows, ink=ink()),
            "models lineage",
            "Mean Dice of each round's model, and which were kept or published",
        )
    for row in rows:
        row["mb"] = row["n_bytes"] / 1e6
    columns = {
        "round": number("round", 0),
        "mean_dice": number("mean Dice", 3, "over ET, TC and WT"),
        "made_at": moment("made"),
        "mb": number("MB", 1),
        "on_disk": tick("on the disk"),
        "releases": text("published as"),
        "digest": text("digest of its weights"),
    }
    table(rows, columns, key="models rounds", height=min(38 + 35 * len(rows), 320))
    folder = view.source.folder
    if folder is None:
        st.caption("Cards of model files are read where the pages are opened with the folder: `brainunet-dashboard DIR`.")
        return
    there = [model for model in reversed(own) if model.removed_at is None]
    picked = st.selectbox(
        "Card of the model of round",
        [model.round for model in there],
        index=None,
        width=280,
        placeholder="choose a round",
        key="models card of round",
    )
    chosen = next((model for model in there if model.round == picked), None)
    if chosen is not None:
        found = round_card(folder, run.id, chosen.file)
        if found is None:
            st.warning("Its file is not in this folder any more.")
        else:
            _card(found, f"{run.id}-round-{picked}")


def _releases(view: View, run: Run, releases: Sequence[ReleaseRow]) -> None:
    st.subheader("Published models")
    if not releases:
        if run.kind == "federation":
            empty("Nothing is published yet.", f"flower-server publish {in_shell(view.source.name)} --round best --name NAME")
        else:
            empty("Nothing is published: only a federation's models are.")
        return
    means = {
        (run_id, number): mean
        for run_id in {release.run_id for release in releases}
        for number, mean in figures.means_of_regions(view.feed.figures(run_id)).items()
    }
    rows = models.release_table(releases, view.feed.downloads(), means)
    for row in rows:
        row["mb"] = row["n_bytes"] / 1e6
    columns = {
        "name": text("name"),
        "state": text("state"),
        "run": text("run"),
        "round": number("round", 0),
        "mean_dice": number("mean Dice", 3, "over ET, TC and WT"),
        "published_at": moment("published"),
        "downloads": number("fetched", 0, "times, to the end of the file"),
        "mb": number("MB", 1),
        "notes": text("notes"),
        "sha256": text("SHA-256 of the file"),
    }
    table(rows, columns, key="models releases")
    downloads = models.download_table(view.feed.downloads())
    if downloads:
        with st.expander(f"The last {len(downloads)} downloads"):
            named = {
                "at": moment("began"),
                "release": text("release"),
                "who": text("who"),
                "kind": text("kind"),
                "whole": tick("to its end"),
            }
            table(downloads, named, key="models downloads")
    if view.source.folder is None:
        return
    picked = st.selectbox(
        "Card of a release",
        [release.name for release in releases],
        index=None,
        width=280,
        placeholder="choose a release",
        key="models card of release",
    )
    release = next((one for one in releases if one.name == picked), None)
    if release is not None:
        _card(_checked(view.source.folder, release.file, _stamp(view.source.folder / release.file)), release.name)
    st.caption("Withdrawing takes a release from nobody, but tells everybody who asks for it or holds it:")
    st.code(f'flower-server withdraw {in_shell(view.source.name)} NAME --reason "…"', language="bash", wrap_lines=True)


@st.cache_data(show_spinner=False, max_entries=32)
def _checked(folder: Path, file: str, stamp: tuple[int, int]) -> FoundCard:
    """Hashing a model of 91 MB with every refresh would keep a core busy; ``stamp`` changes with the file."""
    del stamp
    return release_card(folder, file)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _card(found: FoundCard, name: str) -> None:
    if found.card is None:
        st.warning(plain(found.problem))
        return
    card = found.card
    with st.container(border=True):
        st.markdown(f"**{plain(card.title)}**")
        if found.signature:
            (st.success if found.is_signed else st.error)(plain(found.signature))
        facts = [
            ("Trained on", card.trained_on),
            ("From", card.provenance),
            ("Use", card.intended_use),
            ("Notes", card.notes),
            ("Network", f"{card.model.preset}, {card.model.norm} norm, input {', '.join(card.model.modalities)}"),
            ("Weights", card.weights_sha256),
        ]
        st.markdown("\n".join(f"- {label}: {plain(visible(value, 2000))}" for label, value in facts if value))
        rows = _by_site(card)
        if rows:
            columns = {"site": name_of("site"), "rounds": number("rounds", 0), "train": number("training cases", 0)}
            columns |= {"dice": number("WT Dice"), "n": number("n (cases)", 0), "epsilon": number("epsilon")}
            table(rows, columns, key=f"card {name}")
        st.download_button(
            "Download this card (JSON)",
            card.model_dump_json(indent=2),
            f"{name}.card.json",
            "application/json",
            key=f"download {name}",
        )


def _by_site(card: ModelCard) -> list[dict[str, Any]]:
    parts = card.release.sites if card.release else {}
    rows = []
    for site in sorted({*card.scores, *parts, *card.spends}):
        whole = (
            next((r for r in card.scores[site].rows if (r.structure, r.metric) == ("WT", "dice")), None)
            if site in card.scores
            else None
        )
        rows.append(
            {
                "site": site,
                "rounds": parts[site].rounds if site in parts else None,
                "train": parts[site].cases_train if site in parts else None,
                "dice": whole.mean if whole else None,
                "n": whole.n if whole else None,
                "epsilon": card.spends[site].epsilon if site in card.spends else None,
            }
        )
    return rows


def _readers(view: View) -> None:
    rows = models.who_may_pull(view.feed.sites(), view.feed.readers(), view.feed.downloads(), view.now)
    if not rows:
        return
    st.subheader("Who may fetch releases")
    columns = {
        "who": text("who"),
        "kind": text("kind"),
        "may": tick("may"),
        "until": moment("until"),
        "downloads": number("fetched", 0, "times, to the end of the file"),
        "why_not": text("why not"),
    }
    table(rows, columns, key="models readers")
    st.caption("Somebody who is no site of the federation gets a pass:")
    st.code(f"flower-server reader add {in_shell(view.source.name)} NAME -o NAME.pass.json", language="bash", wrap_lines=True)


def _lineage(view: View, releases: Sequence[ReleaseRow]) -> None:
    runs = list(reversed(main_runs(view.feed.runs())))
    st.subheader("Lineage of all runs")
    rows = models.lineage(runs, {run.id: view.feed.models(run.id) for run in runs}, releases)
    columns = {
        "run": text("run"),
        "kind": text("kind"),
        "began_with": text("began with"),
        "rounds": number("rounds done", 0),
        "published": text("published of it"),
        "start_digest": text("digest of what it began with"),
    }
    for row in rows:
        row["published"] = ", ".join(row["releases"])
    table(rows, columns, key="models runs")
