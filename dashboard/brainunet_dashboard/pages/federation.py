"""Where the run stands, and how good its model is at each site."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import streamlit as st

from brainunet.moments import duration
from brainunet_dashboard.charts.lines import line_chart
from brainunet_dashboard.frame import (
    View,
    change,
    chart,
    choose_structure,
    chosen_run,
    empty,
    ink,
    live,
    name_of,
    number,
    table,
    text,
    zone,
)
from brainunet_dashboard.queries import figures, private, rounds
from brainunet_dashboard.serverstatus import ServerStatus, read_status
from brainunet_dashboard.words import NO_FIGURE, NOTHING, ago, figure, in_shell, plain, several, visible, when
from brainunet_server.store.reader import Model, Run, SiteRound

COMMANDS = (
    ("pause", "No further round begins once the one in progress is complete. Sites stay connected and wait."),
    ("resume", "Goes on with the next round after a pause."),
    ("stop", "Ends the server at once; complete rounds are kept, and `flower-server run` goes on with the one in progress."),
    ("run", "Starts the server, or goes on with the run where it stopped."),
    ("publish", "Gives a round's model a name, a complete card and a signature. It can be withdrawn, never changed."),
)
WHILE_IT_RUNS = ("pause", "resume", "stop")


def show() -> None:
    st.title("Federation")
    live(_body)


def _body(view: View) -> None:
    run = chosen_run(view)
    if run is None:
        return
    exchanges, models = view.feed.site_rounds(run.id), view.feed.models(run.id)
    status = read_status(view.source.status, run.id)
    _headline(view, run, exchanges, models, status)
    found = view.feed.figures(run.id)
    if not found and not any(row.withheld for row in exchanges):
        empty(
            "No figure yet: a round's model is scored by the sites in the next round. This page shows it by itself.",
            f"flower-server status {in_shell(view.source.name)}" if run.kind == "federation" else "",
        )
    else:
        _dice(view, run, exchanges)
    _commands(view, run)


def _headline(
    view: View, run: Run, exchanges: Sequence[SiteRound], models: Sequence[Model], status: ServerStatus | None
) -> None:
    at, target = rounds.progress(run, models, view.now), private.target_of(run)
    there = rounds.attendance(
        view.feed.sites() if run.kind == "federation" else [], exchanges, view.now, ended_at=run.finished_at
    )
    latest = models[-1] if models else None
    with st.container(horizontal=True, gap="small"):
        st.metric("Run", run.status, border=True, width="content")
        st.metric("Round", f"{at.round} of {at.of}", border=True, width="content")
        st.metric("Time left", _left(at, status, view.now), border=True, width="content", help=_left_help(at, status))
        st.metric("Strategy", plain(run.strategy), border=True, width="content")
        words = "off" if target is None else f"epsilon {target[0]:g}"
        st.metric("Privacy", words, border=True, width="content", help=_privacy_help(target))
        counts = f"{len(there.online)} / {len(there.late)} / {len(there.lost)}"
        st.metric("Online / late / lost", counts, border=True, width="content", help=_who(there))
    facts = [f"network {plain(run.preset)}", f"begun {when(run.started_at, zone())}"]
    if latest is not None:
        facts.append(f"model of round {latest.round}: digest `{visible(latest.digest)[:16]}`")
    if there.never:
        facts.append(f"never seen: {plain(', '.join(there.never))}")
    st.caption(" · ".join(facts))
    if status is not None:
        st.caption(f"The server, {ago(status.updated_at, view.now)}: {plain(status.state)}, {plain(status.message)}")
    elif run.kind == "federation" and run.status == "running" and there.lost and not there.online:
        st.warning("No site was seen lately, which may mean that the server does not run. `flower-server status` tells.")


def _dice(view: View, run: Run, exchanges: Sequence[SiteRound]) -> None:
    st.subheader("Dice by round")
    structure = choose_structure()
    lines, dice = figures.lines_of(view.feed.figures(run.id), exchanges, structure), figures.metric_of("dice")
    chart(
        line_chart(lines, view.looks, dice, structure, ink=ink()),
        "federation dice",
        f"Dice of {structure} by round, a line for each of {several(len(lines.sites), 'site')} and their mean",
    )
    _findings(lines)
    st.caption(
        "Each site's mean over its validation cases; n is their number. Where a line is broken the site gave no answer. "
        "Crosses at the foot: it answered without a figure, for it has too few cases, or none has a value."
    )
    columns = {
        "site": name_of("site"),
        "value": number(f"Dice {structure}, round {lines.last}"),
        "n": number("n (cases)", 0),
        "since_last": change(f"since round {(lines.latest or 1) - 1}"),
        "since_start": change("since round 0"),
        "note": text("note"),
    }
    if lines.latest in (None, 0, 1):
        del columns["since_last"]
    table(figures.latest_table(lines), columns, key="federation sites")


def _findings(lines: figures.Lines) -> None:
    ends, sinking = figures.spread(lines, lines.latest), figures.falling(lines)
    mean = next((point for point in reversed(lines.overall) if point.value is not None), None)
    if mean is None:
        empty(NO_FIGURE)
        return
    with st.container(horizontal=True, gap="small"):
        st.metric("Mean over all cases", f"{figure(mean.value)} (n = {mean.n})", border=True, width="content")
        if ends.worst and ends.best:
            worst = f"{figure(ends.worst[1])} (n = {ends.n_worst})"
            st.metric(f"Worst: {plain(visible(ends.worst[0], 16))}", worst, border=True, width="content")
            st.metric("Spread", figure(ends.width), border=True, width="content", help="between the best and the worst site")
        st.metric("Sites falling", len(sinking) or "none", border=True, width="content", help="worse three times running")
    if sinking:
        st.warning(f"Worse three times running: {plain(', '.join(sinking))}", icon=":material/trending_down:")


def _commands(view: View, run: Run) -> None:
    if run.kind != "federation":
        return
    with st.expander("Commands for this run"):
        st.caption("These pages only read. Copy a command, and give it on the coordinator's machine.")
        name = in_shell(view.source.name)
        for command, effect in COMMANDS:
            if command in WHILE_IT_RUNS and run.status != "running":
                continue
            more = " --round best --name NAME" if command == "publish" else ""
            st.code(f"flower-server {command} {name}{more}", language="bash", wrap_lines=True)
            st.caption(effect)


def _left(at: rounds.Progress, status: ServerStatus | None, now: datetime) -> str:
    if not at.is_running:
        return NOTHING
    if status is not None and status.deadline_at is not None and status.deadline_at > now and at.left_s is None:
        return f"round: {duration((status.deadline_at - now).total_seconds())}"
    return "not known yet" if at.left_s is None else f"about {duration(at.left_s)}"


def _left_help(at: rounds.Progress, status: ServerStatus | None) -> str:
    pace = "of the whole run, at the pace of the last rounds" if at.left_s is not None else "known once two rounds are complete"
    if status is None or status.deadline_at is None:
        return pace
    return f"{pace}; the round in progress waits for replies until {when(status.deadline_at, zone())}"


def _privacy_help(target: tuple[float, float] | None) -> str:
    if target is None:
        return "The sites train without differential privacy."
    return f"Each case is hidden up to epsilon {target[0]:g} at delta {target[1]:g} over the run; see Privacy and traffic."


def _who(there: rounds.Attendance) -> str:
    groups = {"online": there.online, "late": there.late, "lost": there.lost}
    return "Sites " + "; ".join(f"{word}: {plain(', '.join(names)) or 'none'}" for word, names in groups.items())
