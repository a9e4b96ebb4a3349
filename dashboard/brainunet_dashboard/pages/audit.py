"""Everything that happened to the federation, in a chain in which no line can be changed unseen."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import streamlit as st

from brainunet import chain
from brainunet.errors import BrainUNetError
from brainunet_dashboard import opened
from brainunet_dashboard.frame import View, empty, live, moment, number, table, text
from brainunet_dashboard.trail import MOST_SHOWN, Found, Wanted, as_csv, as_json, row_of, search
from brainunet_dashboard.words import plain, several, visible


@dataclass
class _Export:
    """What the buttons for exporting give out: they are asked when they are pressed.

    They lie outside of what is drawn anew every few seconds. Streamlit gives a button for a download another address with each
    drawing, and a press just then would find nothing at the former one.
    """

    wanted: Wanted = field(default_factory=Wanted)
    is_possible: bool = False
    is_offered: bool | None = None
    """None while the page is being drawn as a whole."""


def show() -> None:
    st.title("Audit")
    export: _Export = st.session_state.setdefault("audit export", _Export())
    export.is_offered = None
    live(lambda view: _body(view, export))
    export.is_offered = export.is_possible
    path = opened.source.audit if opened.source else None
    if path is None or not export.is_offered:
        return
    with st.container(horizontal=True):
        st.download_button("Export as CSV", lambda: as_csv(path, export.wanted), "audit.csv", "text/csv", on_click="ignore")
        st.download_button(
            "Export as JSON", lambda: as_json(path, export.wanted), "audit.json", "application/json", on_click="ignore"
        )


def _body(view: View, export: _Export) -> None:
    export.is_possible = _trail(view, export)
    if export.is_offered not in (None, export.is_possible):
        st.rerun()  # with the buttons, or without them


def _trail(view: View, export: _Export) -> bool:
    """Whether it can be exported."""
    path = view.source.audit
    if path is None:
        empty("The audit trail lies in the federation's folder, not in its database:", "brainunet-dashboard DIR")
        return False
    if not path.exists():
        empty(
            "No audit trail here: a federation's begins with its making, and a simulation has none.",
            "flower-server init DIR --name NAME --host HOST --model MODEL",
        )
        return False
    _verify(path)
    words = st.text_input(
        "Search", placeholder="words that an entry holds, such as a site, a digest or a day", key="audit words"
    )
    everything = _search(path, Wanted(), _stamp(path))
    with st.container(horizontal=True):
        kinds = st.multiselect("Kinds", everything.kinds, placeholder="all kinds", key="audit kinds")
        site = st.selectbox(
            "Site", everything.sites, index=None, placeholder="all sites", format_func=visible, key="audit site"
        )
    export.wanted = wanted = Wanted(words, tuple(kinds), site or "")
    found = _search(path, wanted, _stamp(path))
    if found.problem:
        st.error(f"{plain(found.problem)} Only what comes before it is shown.", icon=":material/link_off:")
    shown = f", the latest {MOST_SHOWN} shown" if found.matches > MOST_SHOWN else ""
    st.caption(f"{several(found.matches, 'entry', 'entries')} of {found.total}{shown}")
    columns = {
        "n": number("n", 0),
        "at": moment("when"),
        "kind": text("what"),
        "site": text("site"),
        "round": number("round", 0),
        "facts": text("facts"),
        "run": text("run"),
        "digest": text("digest"),
    }
    table([row_of(entry) for entry in found.entries], columns, key="audit table", height=420)
    return not found.problem


def _verify(path: Path) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        noted = st.text_input(
            "Head noted earlier (optional)",
            placeholder="64 hexadecimal digits",
            help="shows whether lines were cut off the end, or the file replaced",
            key="audit head",
        )
        asked = st.button("Verify the chain", type="primary", key="audit verify")
    if asked:
        st.session_state["audit verified"] = _verified(path, noted.strip() or None)
    said = st.session_state.get("audit verified")
    if said is not None:
        is_whole, words = said
        (st.success if is_whole else st.error)(words, icon=":material/verified:" if is_whole else ":material/link_off:")


def _verified(path: Path, noted: str | None) -> tuple[bool, str]:
    at = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    try:
        found = chain.verify(path, noted)
    except BrainUNetError as error:
        return False, f"{at}: {plain(str(error))}"
    words = f"{at}: {several(found.entries, 'entry', 'entries')}, each as it was written. Head: `{found.head}`"
    if noted:
        words += ". The head that was noted is among them."
    if found.torn:
        words += " A last line was cut short, as by a power cut; the next entry sets it aside."
    return True, words


@st.cache_data(show_spinner=False, max_entries=8)
def _search(path: Path, wanted: Wanted, stamp: tuple[int, int]) -> Found:
    """``stamp`` changes with the file: it is read again only then."""
    del stamp
    return search(path, wanted)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
