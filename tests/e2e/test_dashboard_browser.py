"""The dashboard in a real browser, over a store that another process is writing."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brainunet_dashboard.pages import PAGES
from brainunet_server.store.writer import StoreWriter
from tests.support.browser import browser
from tests.support.programs import Program
from tests.support.watched import MARKUP, eventful, simulations

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "out" / "screenshots"  # kept, to be looked at
PATIENCE_S = 40.0
SITES = PAGES[1]

# Says every address outside of this machine that the server process so much as looks up.
DASHBOARD = """
import sys
def watch(event, facts):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        host = facts[0] if event == "socket.getaddrinfo" else facts[1][0] if isinstance(facts[1], tuple) else ""
        if host not in ("127.0.0.1", "localhost", "", None):
            print("OUTWARD", event, host, file=sys.stderr, flush=True)
sys.addaudithook(watch)
from brainunet_dashboard.cli import main
main()
"""

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
    command = [sys.executable, "-c", DASHBOARD, str(folder), "--port", "0", "--refresh", "1"]
    program = Program("dashboard", command, folder, {})
    try:
        wait_until(lambda: "open http" in program.said or not program.is_alive, "its address")
        assert program.is_alive, program.said
        wait_until(lambda: is_up(address(program)), "its answer")
        yield program
    finally:
        program.close()


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
        page.get_by_test_id("stSidebarNav").get_by_text(at.title, exact=True).click()
        page.get_by_role("heading", name=at.title, exact=True).wait_for()
        settled(page)
        assert page.get_by_test_id("stException").count() == 0, at.title
        assert page.get_by_role("alert").filter(has_text="looks again").count() == 0
        photograph(page, f"{at.path}-light")
    assert page.get_by_text("Deploy", exact=True).count() == 0
    assert page.evaluate("window.stillTheSamePage") is True
    assert hosts == {address(dashboard).removeprefix("http://")}
    assert "OUTWARD" not in dashboard.said


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


def address(program: Program) -> str:
    found = re.search(r"open (http://127\.0\.0\.1:[0-9]+) ", program.said)
    assert found is not None, program.said
    return found[1]


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def handshake(at: str, *, host: str, origin: str) -> int:
    """The status that asking for a web socket gets."""
    port = int(at.rpartition(":")[2])
    lines = (
        "GET /_stcore/stream HTTP/1.1",
        f"Host: {host}",
        f"Origin: {origin}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(line.recv(64).split()[1])


def opened(context: BrowserContext, url: str) -> tuple[Page, set[str]]:
    """A new page, and the hosts that it asks for anything from now on."""
    page, hosts = context.new_page(), set[str]()
    page.set_default_timeout(PATIENCE_S * 1000)
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if "://" in request.url else None)
    page.on("websocket", lambda socket: hosts.add(socket.url.split("/")[2]))
    page.goto(url)
    return page, hosts


def settled(page: Page) -> None:
    """Nothing is being loaded any more."""
    page.wait_for_function("document.querySelectorAll('[data-testid=stSkeleton], [data-stale=true]').length === 0")
    page.wait_for_timeout(300)


def photograph(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def wait_until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(0.1)
