"""What every page has: the store, the chosen run, refreshing, and what is said when there is nothing or something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import plotly.graph_objects as go
import streamlit as st

from brainunet.errors import BrainUNetError
from brainunet.moments import duration
from brainunet_dashboard import opened
from brainunet_dashboard.feed import Feed
from brainunet_dashboard.first_look import is_awaited
from brainunet_dashboard.palette import Look, looks
from brainunet_dashboard.queries.runs import main_runs, title_of
from brainunet_dashboard.source import Source
from brainunet_dashboard.words import in_shell, in_spreadsheet, plain, visible
from brainunet_server.store.reader import Run

DARK_INK: Final = "#31333F"
LIGHT_INK: Final = "#FAFAFA"
CHOSEN: Final = "chosen run"
STRUCTURES: Final = ("WT", "TC", "ET", "NETC", "SNFH")
TITLES: Final[Mapping[str, str]] = {
    "WT": "WT whole tumour",
    "TC": "TC tumour core",
    "ET": "ET enhancing",
    "NETC": "NETC (label)",
    "SNFH": "SNFH (label)",
}

_CONFIG: Final = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"], "responsive": True}


@dataclass(frozen=True)
class View:
    """One look at the store, by one open page."""

    feed: Feed
    source: Source
    now: datetime

    @property
    def looks(self) -> Mapping[str, Look]:
        return looks(self.feed.sites_by_arrival())

    @property
    def looks_of_runs(self) -> Mapping[str, Look]:
        """By the order in which they began: another run that begins, or is looked at, changes no colour."""
        return looks([run.id for run in reversed(main_runs(self.feed.runs()))])


@st.cache_resource(show_spinner=False)
def _feed(database: str) -> Feed:
    """One for all open pages of this process."""
    return Feed(database)


def live(body: Callable[[View], None]) -> None:
    """Draw, and draw again every few seconds; a problem takes the place of what is drawn until it is gone."""
    source = opened.source
    if source is None:
        st.error("Nothing to show: these pages are opened by `brainunet-dashboard DIR`.")
        return

    @st.fragment(run_every=source.refresh_s)
    def again() -> None:
        try:
            body(View(_feed(str(source.database)), source, datetime.now(UTC)))
        except BrainUNetError as error:
            if is_awaited(source):
                _no_run_yet(source)
            else:
                problem(error, source.refresh_s)

    again()


def problem(error: BrainUNetError, refresh_s: float) -> None:
    st.error(plain(str(error)), icon=":material/error:")
    st.caption(f"This page looks again by itself every {duration(refresh_s)}; nothing needs to be reloaded.")


def empty(said: str, command: str = "", then: str = "") -> None:
    """Nothing there yet, and the command that changes it."""
    st.info(said, icon=":material/info:")
    if command:
        st.code(command, language="bash", wrap_lines=True)
    if then:
        st.caption(then)


def _no_run_yet(source: Source) -> None:
    empty(
        "No run yet. Start one; it appears here by itself.",
        f"flower-server run {in_shell(source.name)}"
        if source.folder is None or (source.folder / "federation.toml").exists()
        else f"brainunet-simulate --phantom --out {in_shell(source.name)}",
    )


def chosen_run(view: View) -> Run | None:
    """The run that the person has chosen, on whatever page; the latest, while none was; None where there is none yet.

    The latest is followed: when another begins, that is shown.
    """
    runs = view.feed.runs()
    shown = main_runs(runs)
    if not shown:
        _no_run_yet(view.source)
        return None
    by_id = {run.id: run for run in shown}
    wanted = st.session_state.setdefault(CHOSEN, st.query_params.get("run"))  # an address may name one
    if wanted is not None and wanted not in by_id:
        st.warning(
            f"Run {plain(wanted)} is no longer in the store, or never was. This is the latest one.", icon=":material/delete:"
        )
    latest = f"the latest run: {visible(shown[0].id)}"
    options, here = [None, *by_id], zone()
    picked = st.selectbox(
        "Run",
        options,
        index=options.index(wanted) if wanted in by_id else 0,
        format_func=lambda one: latest if one is None else visible(title_of(by_id[one], here)),
        label_visibility="collapsed",
    )
    if picked is None or picked != wanted:
        st.session_state[CHOSEN] = picked
    return by_id[picked] if picked is not None else shown[0]


def choose_structure() -> str:
    """One choice for all pages: whoever looks at ET goes on looking at it."""
    picked = st.segmented_control(
        "Region or label",
        STRUCTURES,
        default="WT",
        key="structure",
        format_func=lambda one: TITLES[one],
        required=True,
        label_visibility="collapsed",
        persist_state="session",
    )
    return picked or "WT"


def ink() -> str:
    """The colour of what is drawn in the page's own colour."""
    return LIGHT_INK if st.context.theme.type == "dark" else DARK_INK


def zone() -> tzinfo:
    """The time zone of the person's browser."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ValueError, OSError, KeyError):  # a name that this machine doesn't know
        return UTC


def chart(figure: go.Figure, key: str, said: str) -> None:
    """A figure; ``said`` is what those hear who can't see it."""
    st.plotly_chart(figure, width="stretch", key=key, config=_CONFIG, alt=said)


def table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any], *, key: str, height: int | Literal["auto"] = "auto"
) -> None:
    """Rows with these columns and no others, in this order; a moment is shown in the browser's time zone.

    Whoever looks may save the table as CSV: no cell is a formula.
    """
    here = zone()
    cells = [{name: _cell(row.get(name), here) for name in columns} for row in rows]
    st.dataframe(
        cells, column_config=columns, column_order=list(columns), hide_index=True, key=key, placeholder="—", height=height
    )


def text(label: str, help: str | None = None) -> Any:
    return st.column_config.TextColumn(label, help=help)


def name_of(what: str, width: int = 130) -> Any:
    """The column that says of whom a row is; it stays where the others are moved past."""
    return st.column_config.TextColumn(what, pinned=True, width=width)


def number(label: str, digits: int = 3, help: str | None = None) -> Any:
    return st.column_config.NumberColumn(label, help=help, format=f"%.{digits}f")


def change(label: str, digits: int = 3, help: str | None = None) -> Any:
    """With its sign."""
    return st.column_config.NumberColumn(label, help=help, format=f"%+.{digits}f")


def moment(label: str, help: str | None = "in your browser's time zone") -> Any:
    return st.column_config.DatetimeColumn(label, help=help, format="YYYY-MM-DD HH:mm")


def tick(label: str, help: str | None = None) -> Any:
    return st.column_config.CheckboxColumn(label, help=help)


def _cell(value: Any, here: tzinfo) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(here)
    return in_spreadsheet(visible(value)) if isinstance(value, str) else value
