"""Each site: whether it is there, what it holds, what it did, and why its part was not used."""

from __future__ import annotations

import streamlit as st

from brainunet_dashboard.charts.outcomes import outcome_chart, outcome_legend
from brainunet_dashboard.frame import View, chart, chosen_run, empty, live, moment, name_of, number, table, text
from brainunet_dashboard.queries import rounds
from brainunet_dashboard.words import in_shell, plain, several

SOON_DAYS = 30
MOST_REFUSALS = 500


def show() -> None:
    st.title("Sites")
    live(_body)


def _body(view: View) -> None:
    run = chosen_run(view)
    if run is None:
        return
    exchanges = view.feed.site_rounds(run.id)
    seen = view.feed.sites() if run.kind == "federation" else []
    trained = [row for row in exchanges if row.round <= run.rounds]
    rows = rounds.site_table(seen, trained, [row.site for row in exchanges], view.now)
    if not rows:
        answer = f"flower-server enrol {in_shell(view.source.name)} NAME.request -o NAME.kit"
        empty(
            "No site yet. A hospital makes a request, and the coordinator answers it with a kit:",
            f"brainunet-client --enrol NAME --server HOST:PORT\n{answer}",
        )
        return
    _warn(view, rows)
    for row in rows:
        row["mb_down"], row["mb_up"] = (None if row[key] is None else row[key] / 1e6 for key in ("bytes_down", "bytes_up"))
    columns = {
        "site": name_of("site"),
        "state": text("state", "as the server last saw it"),
        "last_seen": moment("last seen"),
        "version": text("client"),
        "train": number("train", 0, "cases that it trains on"),
        "validation": number("validate", 0, "cases that it scores models on"),
        "certificate_days": number("certificate, days", 0, "until it ends"),
        "round": number("last round", 0),
        "outcome": text("its outcome"),
        "seconds": number("seconds", 1, "from the task to the reply, as the site tells; under privacy it tells none"),
        "mb_down": number("MB down", 1),
        "mb_up": number("MB up", 1),
        "answers": number("answered", 0, "rounds that it answered in time"),
        "refusal": text("last refusal or fault"),
    }
    if not seen:  # a simulation's sites have neither certificates nor a line that could be cut
        columns = {name: one for name, one in columns.items() if name not in ("state", "last_seen", "certificate_days")}
    table(rows, columns, key="sites table")
    if not exchanges:
        empty("No round is complete yet; what each site does in it is shown here then.")
        return
    st.subheader("What each site did, round by round")
    grid = rounds.outcome_grid(exchanges)
    st.html(outcome_legend(grid))
    chart(
        outcome_chart(grid), "sites grid", f"Outcome of {several(len(grid.sites), 'site')} in each of {len(grid.rounds)} rounds"
    )
    if any("withheld" in line for line in grid.cells):
        st.caption("Withheld: it answered, and has too few validation cases to tell figures.")
    if grid.rounds[-1] > run.rounds:
        st.caption(f"After round {run.rounds}, column {grid.rounds[-1]} only scores its model.")
    refused = rounds.refusals(exchanges)
    st.subheader("What was not used, and why")
    if not refused:
        st.caption("Every part of every site entered its round's model.")
        return
    columns = {"round": number("round", 0), "site": text("site"), "outcome": text("outcome"), "reason": text("reason")}
    table(refused[:MOST_REFUSALS], columns, key="sites refusals")
    if len(refused) > MOST_REFUSALS:
        st.caption(f"The latest {MOST_REFUSALS} of {len(refused)}.")


def _warn(view: View, rows: list[dict[str, object]]) -> None:
    for row in rows:
        days = row["certificate_days"]
        if isinstance(days, int) and days < SOON_DAYS:
            left = f"ends in {several(days, 'day')}" if days >= 0 else f"ended {several(-days, 'day')} ago"
            name = str(row["site"])
            st.warning(f"The certificate of {plain(name)} {left}. Give it a new kit:", icon=":material/badge:")
            command = f"flower-server rotate {in_shell(view.source.name)} site {in_shell(name)} -o {in_shell(name + '.kit')}"
            st.code(command, language="bash", wrap_lines=True)
