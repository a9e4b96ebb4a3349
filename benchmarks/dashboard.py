"""How long the dashboard takes over 300 rounds of 30 sites with every metric, and how little a refresh fetches.

    python -m benchmarks.dashboard [--rounds 300] [--sites 30] [--chromium /usr/bin/chromium]

A page is drawn by Streamlit without a browser: cold with nothing read yet, warm with all of it read, and after one more round.
The budget is 3 s cold and 1 s warm; what counts on another machine are the ratios. With Chromium also what a person waits for,
until the first chart or table: cold from the address, in a dashboard and a browser just started, warm from a click in the menu.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path

from brainunet.records import Structure
from brainunet_server.store.rows import Score
from brainunet_server.store.writer import StoreWriter
from tests.support.watched import STRUCTURES, a_model, a_run, answer, curve
from tests.support.watching import address, dashboard_over, go_to, opened, settled

REGIONS: tuple[Structure, ...] = ("ET", "TC", "WT")
METRICS = ("hd95_mm", "nsd_1mm", "lesion_dice", "lesion_hd95_mm")
PAGES = ("federation", "sites", "scores", "traffic", "models", "compare")
RUN = "fed-1"


def write_round(writer: StoreWriter, exchange: int, sites: int) -> None:
    """One exchange of all sites, with every metric that a site may tell of every structure."""
    names = [f"site-{i:02d}" for i in range(sites)]
    kinds = [("dice", structure) for structure in STRUCTURES] + [(metric, region) for metric in METRICS for region in REGIONS]
    figures = [
        Score(
            run_id=RUN,
            round=exchange - 1,
            site=site,
            structure=structure,
            metric=metric,
            mean=curve(0, exchange - 1, structure) + place / 1000,
            median=0.5,
            n=10,
            missing=0,
        )
        for place, site in enumerate(names)
        for metric, structure in kinds
    ]
    writer.record_exchange(RUN, exchange, [answer(RUN, exchange, site) for site in names], figures)
    writer.record_model(a_model(RUN, exchange))


def drawn(page: str) -> float:
    """Seconds that a page takes."""
    from streamlit.testing.v1 import AppTest

    test = AppTest.from_string(f"from brainunet_dashboard.pages import {page}\n{page}.show()", default_timeout=300)
    began = time.perf_counter()
    test.run()
    seconds = time.perf_counter() - began
    assert not test.exception
    assert not test.error
    return seconds


def seen(folder: Path, chromium: Path) -> dict[str, tuple[float, float]]:
    """Page -> seconds to its first chart or table, in a browser and on a server just started, and by the menu later on."""
    from playwright.sync_api import sync_playwright

    from brainunet_dashboard.pages import PAGES as MENU

    pages, took = [page for page in MENU if page.path in PAGES], {}
    for page in pages:
        other = pages[pages.index(page) - 1]
        with dashboard_over(folder) as program, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            context = browser.new_context(viewport={"width": 1366, "height": 768})
            began = time.perf_counter()
            tab, _ = opened(context, address(program) + ("" if page is MENU[0] else f"/{page.path}"))
            drawing = tab.locator(".js-plotly-plot .main-svg, [data-testid=stDataFrame] canvas").first
            drawing.wait_for()
            cold, later = time.perf_counter() - began, []
            for _ in range(3):
                go_to(tab, other.title)
                settled(tab)
                began = time.perf_counter()
                go_to(tab, page.title)
                drawing.wait_for()
                later.append(time.perf_counter() - began)
            browser.close()
        took[page.path] = (cold, min(later))
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--sites", type=int, default=30)
    parser.add_argument("--chromium", type=Path, help="of the system; without it no browser is opened")
    given = parser.parse_args()
    os.environ["STREAMLIT_LOGGER_LEVEL"] = "error"
    logging.disable(logging.WARNING)  # Streamlit's, of running without a server

    from brainunet_dashboard import frame
    from brainunet_dashboard import opened as at_hand
    from brainunet_dashboard.feed import Feed
    from brainunet_dashboard.source import Source

    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "store.sqlite"
        with StoreWriter(database) as writer:
            writer.start_run(a_run(RUN, rounds=given.rounds + 10))
            for exchange in range(1, given.rounds + 1):
                write_round(writer, exchange, given.sites)
            at_hand.source = Source(database)
            feeds: dict[str, Feed] = {}

            def feed(database: str) -> Feed:
                return feeds.setdefault(database, Feed(database, fresh_s=0))

            frame._feed = feed  # type: ignore[assignment]
            drawn("audit")  # Streamlit's own imports, which a server has behind it
            print(f"{given.rounds} rounds of {given.sites} sites, {database.stat().st_size / 1e6:.0f} MB of SQLite")
            print("page          cold s   warm s   after a round s   rows cold   rows after a round   ratio")
            exchange = given.rounds
            for page in PAGES:
                for one in feeds.values():
                    one.close()
                feeds.clear()
                cold = drawn(page)
                (own,) = feeds.values()
                rows_cold = own.rows_fetched
                warm = min(drawn(page) for _ in range(3))
                exchange += 1
                write_round(writer, exchange, given.sites)
                before = own.rows_fetched
                after = drawn(page)
                new = own.rows_fetched - before
                print(f"{page:12s} {cold:7.2f}  {warm:7.2f}  {after:16.2f}  {rows_cold:10d}  {new:19d}  {new / rows_cold:6.3f}")
        if given.chromium:
            print("page          in Chromium: cold s   warm s")
            for page, (cold, warm) in seen(Path(folder), given.chromium).items():
                print(f"{page:12s} {cold:20.2f}  {warm:7.2f}")


if __name__ == "__main__":
    main()
