"""The dashboard in a real browser, over a store that another process is writing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brainunet.chain import append
from brainunet.data.phantom import write_phantoms
from brainunet_dashboard.pages import PAGES
from brainunet_server.store.writer import StoreWriter
from tests.support.browser import browser
from tests.support.programs import Program
from tests.support.simulation import SHAPE, TINY
from tests.support.watched import MARKUP, eventful, simulations
from tests.support.watching import (
    DASHBOARD,
    PATIENCE_S,
    ROOT,
    address,
    dashboard_over,
    go_to,
    handshake,
    is_up,
    opened,
    photograph,
    settled,
    wait_until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

pytestmark = pytest.mark.slow

SITES = PAGES[1]

# Writes one more round for each line that it reads.
WRITER = """
import sys
from brainunet_server.store.writer import StoreWriter
from tests.support.watched import exchange_of
with StoreWriter(sys.argv[1]) as writer:
    for line in sys.stdin:
        exchange_of(writer, "fed-1", int(line))
        print("written", line, flush=True)
"""

SIMULATE = [sys.executable, "-c", "from brainunet_sim.cli import main; main()"]

# Notes each "k of n" that the page ever shows.
NOTE_EACH_ROUND = """
() => {
    window.seen = []
    const look = () => {
        const found = document.body.innerText.match(/[0-9]+ of [0-9]+/)
        if (found && !window.seen.includes(found[0])) window.seen.push(found[0])
    }
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true})
}
"""
# The rounds of which the chart has a mean.
MEAN_OF = "document.querySelector('.js-plotly-plot').data.find(trace => trace.name.startsWith('mean')).x"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    simulations(folder / "store.sqlite")
    eventful(folder / "store.sqlite", rounds=5)
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def dashboard(folder: Path, chromium: Browser) -> Iterator[Program]:
    del chromium  # it skips where there is none
    with dashboard_over(folder, "--port", "0") as program:
        yield program


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1366, "height": 768}, color_scheme="light")
    yield context
    context.close()


def test_a_new_round_appears_without_a_reload_and_nothing_leaves_this_machine(
    dashboard: Program, folder: Path, context: BrowserContext
) -> None:
    page, hosts = opened(context, f"{address(dashboard)}/?run=fed-1")
    page.get_by_text("6 of 8").wait_for()
    page.evaluate("window.stillTheSamePage = true")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder / "store.sqlite")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        print("6", file=writer.stdin, flush=True)

        page.get_by_text("7 of 8").wait_for()

        assert page.evaluate("window.stillTheSamePage") is True
        assert writer.stdin is not None
        writer.stdin.close()

    page.locator(".legendtext", has_text=MARKUP).first.wait_for(state="attached")  # written out, and not obeyed
    assert page.locator("b", has_text="north").count() == 0
    assert page.locator(".legendtext tspan[style*='bold']").count() == 0
    for at in PAGES:
        go_to(page, at.title)
        settled(page)
        assert page.get_by_test_id("stException").count() == 0, at.title
        assert page.get_by_role("alert").filter(has_text="looks again").count() == 0
        photograph(page, f"{at.path}-light")
    assert page.get_by_text("Deploy", exact=True).count() == 0
    assert page.evaluate("window.stillTheSamePage") is True
    assert hosts == {address(dashboard).removeprefix("http://")}
    assert "OUTWARD" not in dashboard.said


def test_a_simulation_is_watched_from_before_it_begins_until_it_is_complete(tmp_path: Path, context: BrowserContext) -> None:
    rounds = 5
    write_phantoms(tmp_path / "cases", cases=4, style="ssa", seed=4, shape=SHAPE)
    command = [*SIMULATE, *TINY, "--rounds", str(rounds), "--set", "train.steps=8", "--sites", "2"]
    with dashboard_over(tmp_path / "out", "--port", "0", "--wait") as dashboard:
        page, _ = opened(context, address(dashboard))
        page.get_by_text("No run yet").wait_for()
        page.evaluate(NOTE_EACH_ROUND)
        simulation = Program("simulation", [*command, "--data", "cases", "--out", "out"], tmp_path, {})
        try:
            page.get_by_text(f" of {rounds}").first.wait_for()
            page.locator(".js-plotly-plot").first.wait_for()
            while simulation.is_alive:
                page.wait_for_timeout(200)
            seen_while_it_ran = page.evaluate("window.seen")
            assert simulation.process.wait() == 0, simulation.said

            page.get_by_text("completed", exact=True).wait_for()
            page.wait_for_function(f"({MEAN_OF}).length === {rounds + 1}")  # the last model is scored after the last round
        finally:
            simulation.close()

        assert len(seen_while_it_ran) > 1, seen_while_it_ran  # whoever starts anew notes nothing: the page was not reloaded
        assert page.evaluate(MEAN_OF) == list(range(rounds + 1))
        photograph(page, "simulation-complete")


def test_what_somebody_has_chosen_lasts_from_page_to_page_and_through_refreshes(
    dashboard: Program, context: BrowserContext
) -> None:
    page, _ = opened(context, f"{address(dashboard)}/?run=fed-1")
    page.get_by_role("radio", name="ET enhancing").click()
    page.get_by_text("Dice of ET").first.wait_for()
    go_to(page, "Privacy and traffic")
    page.get_by_label("Price of a GB").fill("12.5")
    page.get_by_label("Price of a GB").press("Enter")
    page.get_by_text("Cost", exact=True).wait_for()

    go_to(page, "Scores")
    page.get_by_text("Dice of ET").first.wait_for()
    page.wait_for_timeout(2500)  # two refreshes
    go_to(page, "Privacy and traffic")

    page.get_by_text("Cost", exact=True).wait_for()
    assert page.get_by_label("Price of a GB").input_value() == "12.50"
    run = page.get_by_role("combobox").first
    assert run.input_value().startswith("fed-1 (federation")  # the run that the address has named


def test_the_audit_trail_can_be_exported_at_any_moment(dashboard: Program, folder: Path, context: BrowserContext) -> None:
    page, _ = opened(context, f"{address(dashboard)}/audit")
    page.get_by_text("No audit trail here").wait_for()
    for site in ("Nairobi", "Lagos"):
        append(folder / "audit.jsonl", "site-enrolled", {"site": site})
    export = page.get_by_role("button", name="Export as CSV")  # comes by itself
    export.wait_for()
    page.get_by_role("textbox", name="Search").fill("nairobi")
    page.get_by_role("textbox", name="Search").press("Enter")
    page.get_by_text("1 entry of 2").wait_for()

    for _ in range(8):  # the page is drawn anew each second meanwhile
        with page.expect_download(timeout=5000) as download:
            export.click()
        assert download.value.suggested_filename == "audit.csv"
        first, *more = download.value.path().read_text().splitlines()
        assert first.startswith("n,at,kind")
        assert ["Nairobi" in line for line in more] == [True]
        page.wait_for_timeout(170)


@pytest.mark.parametrize(("theme", "width", "height"), [("dark", 1366, 768), ("light", 390, 844)])
def test_a_page_is_as_wide_as_the_screen(dashboard: Program, chromium: Browser, theme: str, width: int, height: int) -> None:
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
    try:
        page, _ = opened(context, f"{address(dashboard)}/{SITES.path}?run=fed-1")
        page.get_by_role("heading", name=SITES.title, exact=True).wait_for()
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        photograph(page, f"{SITES.path}-{theme}-{width}")
    finally:
        context.close()


def test_a_problem_of_the_store_goes_away_by_itself(dashboard: Program, folder: Path, context: BrowserContext) -> None:
    page, _ = opened(context, f"{address(dashboard)}/?run=fed-1")
    page.get_by_text("Dice by round").wait_for()
    away = (folder / "store.sqlite").rename(folder / "away.sqlite")
    page.get_by_text("no such file").wait_for()

    away.rename(folder / "store.sqlite")

    page.get_by_text("Dice by round").wait_for()
    page.get_by_text("no such file").wait_for(state="detached")


def test_a_page_of_elsewhere_gets_no_connection_and_makes_the_server_ask_nobody(dashboard: Program) -> None:
    own = address(dashboard).removeprefix("http://")

    assert handshake(own, host=own, origin=f"http://{own}") == 101
    assert handshake(own, host=own, origin="http://evil.example") == 403
    assert handshake(own, host=own, origin="http://localhost:3000") == 403  # another program of this machine
    assert handshake(own, host="evil.example", origin=f"http://{own}") == 403
    assert "OUTWARD" not in dashboard.said


def test_the_store_can_still_be_written_and_ends_as_it_was_written(dashboard: Program, folder: Path) -> None:
    del dashboard
    with StoreWriter(folder / "store.sqlite") as writer:
        writer.finish_run("fed-1", "completed")


def test_it_ends_when_it_is_asked_to_also_where_nobody_reads_what_it_says(folder: Path) -> None:
    command = [sys.executable, "-c", DASHBOARD, str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        process.stdout.close()
        try:
            wait_until(lambda: is_up(url), "its answer")
            process.terminate()
            process.wait(PATIENCE_S)
        finally:
            process.kill()
