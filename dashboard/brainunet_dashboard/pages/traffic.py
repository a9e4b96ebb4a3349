"""What private training has cost the sites, and what travels over the line."""

from __future__ import annotations

import streamlit as st

from brainunet_dashboard.charts.traffic import epsilon_chart, traffic_chart
from brainunet_dashboard.frame import View, chart, chosen_run, empty, ink, live, name_of, number, table
from brainunet_dashboard.queries import private, rounds
from brainunet_dashboard.words import size
from brainunet_server.store.reader import Run


def show() -> None:
    st.title("Privacy and traffic")
    live(_body)


def _body(view: View) -> None:
    run = chosen_run(view)
    if run is None:
        return
    _privacy(view, run)
    _traffic(view, run)


def _privacy(view: View, run: Run) -> None:
    st.subheader("Differential privacy")
    target, spends = private.target_of(run), view.feed.spends(run.id)
    if target is None and not spends:
        asked = "[privacy]\nepsilon = 8.0\ndelta = 1e-3" if run.kind == "federation" else "brainunet-simulate --privacy eps=8 …"
        empty("This run trains without differential privacy. A new run asks the sites for it:", asked)
        return
    if not spends:
        empty("No site has told what a round cost yet. It is shown after the first round.")
        return
    by_site = private.epsilon_by_round(spends)
    figure = epsilon_chart(by_site, view.looks, target[0] if target else None, ink=ink())
    chart(figure, "privacy epsilon", "Epsilon of each site by round, and the federation's target")
    columns = {
        "site": name_of("site"),
        "epsilon": number("epsilon of this run"),
        "share": st.column_config.ProgressColumn("of the target", format="percent", min_value=0, max_value=1),
        "delta": st.column_config.NumberColumn("delta", format="%.1e"),
        "round": number("told after round", 0),
        "steps": number("noisy steps", 0),
        "noise": number("noise multiplier"),
        "rate": number("sampling rate"),
        "total_epsilon": number(
            "epsilon of all runs", 3, "of the site over all its runs and models, as its own ledger counts it"
        ),
    }
    table(private.spend_table(spends, target), columns, key="privacy table")
    st.caption(
        "Epsilon bounds what the run may tell of any one case of a site; smaller is more private. The target is that of the "
        "federation. A site's own cap never leaves the site: it stops training there when it is reached."
    )


def _traffic(view: View, run: Run) -> None:
    st.subheader("Traffic")
    exchanges = view.feed.site_rounds(run.id)
    if not exchanges:
        empty("No round is complete yet; what each site has received and sent is shown here then.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        price = st.number_input(
            "Price of a GB, in your currency",
            min_value=0.0,
            value=0.0,
            step=0.5,
            format="%.2f",
            width=240,
            key="traffic price",
            persist_state="session",
        )
        cumulated = st.toggle("cumulated", key="traffic cumulated", persist_state="session")
    rows = rounds.traffic(exchanges, price or None)
    total = sum(row["bytes"] for row in rows)
    with st.container(horizontal=True, gap="small"):
        st.metric("All sites, all rounds", size(total), border=True, width="content")
        st.metric("Per site and round, on average", size(total / max(1, len(exchanges))), border=True, width="content")
        if price:
            st.metric(
                "Cost",
                f"{total / 1e9 * price:,.2f}",
                border=True,
                width=160,
                help="of all sites together, in the currency of the price",
            )
    figure = traffic_chart(rounds.bytes_by_round(exchanges), view.looks, cumulated=cumulated)
    chart(figure, "traffic chart", "Megabytes of each site by round")
    for row in rows:
        row["gb_down"], row["gb_up"], row["gb"] = (row[key] / 1e9 for key in ("bytes_down", "bytes_up", "bytes"))
    columns = {
        "site": name_of("site"),
        "rounds": number("rounds", 0),
        "gb_down": number("GB down"),
        "gb_up": number("GB up"),
        "gb": number("GB both ways"),
        "cost": number("cost", 2, "GB times the price above"),
    }
    if not price:
        del columns["cost"]
    table(rows, columns, key="traffic table")
    st.caption("As the coordinator counts the messages' bytes, before the line's own overhead; a GB is 10⁹ bytes.")
