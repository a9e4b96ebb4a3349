"""A dashboard as a process of its own, and pages of it in the system's Chromium."""

from __future__ import annotations

import re
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.programs import Program

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "out" / "screenshots"  # kept, to be looked at
PATIENCE_S = 40.0

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


@contextmanager
def dashboard_over(folder: Path, *options: str) -> Iterator[Program]:
    """A dashboard over ``folder`` that answers; what it says goes beside that, for the folder need not be there yet."""
    command = [sys.executable, "-c", DASHBOARD, str(folder), "--refresh", "1", *options]
    program = Program(f"dashboard-{folder.name}", command, folder.parent, {})
    try:
        wait_until(lambda: "open http" in program.said or not program.is_alive, "its address")
        assert program.is_alive, program.said
        wait_until(lambda: is_up(address(program)), "its answer")
        yield program
    finally:
        program.close()


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


def go_to(page: Page, title: str) -> None:
    """By the menu."""
    page.get_by_test_id("stSidebarNav").get_by_text(title, exact=True).click()
    page.get_by_role("heading", name=title, exact=True).wait_for()


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
