"""Makes the pictures of the dashboard in this folder, from real runs, in the system's Chromium.

    make demo && make federation
    .venv/bin/python docs/screenshots.py

Other folders: --simulation DIR --federation DIR. Nothing in them is changed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DOCS = Path(__file__).resolve().parent
PATIENCE_S = 120
DASHBOARD = [sys.executable, "-c", "from brainunet_dashboard.cli import main; main()"]


@dataclass(frozen=True)
class Picture:
    """``click``: buttons and tabs that are pressed first, by their text."""

    name: str
    run: Literal["simulation", "federation"]
    page: str
    heading: str
    theme: Literal["light", "dark"] = "light"
    width: int = 1366
    height: int = 768
    click: tuple[str, ...] = ()
    scroll_to: str = ""


PICTURES = (
    Picture("dashboard-federation", "simulation", "", "Federation", height=960),
    Picture("dashboard-gains", "simulation", "scores", "Scores", scroll_to="What the federation gained"),
    Picture("dashboard-sites-dark", "federation", "sites", "Sites", "dark"),
    Picture("dashboard-models", "federation", "models", "Models", height=900),
    Picture("dashboard-audit", "federation", "audit", "Audit", click=("Verify the chain",)),
    Picture("dashboard-phone", "simulation", "", "Federation", width=390, height=844, scroll_to="Dice by round"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulation", type=Path, default=Path("out/demo"))
    parser.add_argument("--federation", type=Path, default=Path("out/federation/fed"))
    parser.add_argument("--out", type=Path, default=DOCS)
    given = parser.parse_args()
    for folder, command in ((given.simulation, "make demo"), (given.federation, "make federation")):
        if not (folder / "store.sqlite").exists():
            sys.exit(f"{folder}: no run there; make one first: {command}")
    chromium = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        sys.exit("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with (
        sync_playwright() as playwright,
        served(given.simulation) as simulation,
        served(given.federation) as federation,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for picture in PICTURES:
            take(browser, picture, simulation if picture.run == "simulation" else federation, given.out)
        browser.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a dashboard over ``folder``."""
    command = [*DASHBOARD, str(folder), "--port", "0", "--refresh", "3600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"open (http://\S+) ", said)
            if found is None:
                sys.exit(f"the dashboard did not start: {said}")
            time.sleep(1)  # its port is open a moment after it says so
            yield found[1]
        finally:
            process.terminate()
            process.wait(30)  # before its output is closed: it says that it stops


def take(browser: Browser, picture: Picture, address: str, out: Path) -> None:
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height}, color_scheme=picture.theme, timezone_id="UTC"
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(f"{address}/{picture.page}")
    page.get_by_role("heading", name=picture.heading, exact=True).wait_for()
    settle(page)
    for text in picture.click:
        page.get_by_text(text, exact=True).click()
        settle(page)
    if picture.scroll_to:
        page.get_by_role("heading", name=picture.scroll_to, exact=True).evaluate("heading => heading.scrollIntoView()")
        settle(page)
    path = out / f"{picture.name}.png"
    page.screenshot(path=path)
    sys.stderr.write(f"{path}\n")
    context.close()


def settle(page: Page) -> None:
    page.wait_for_function("document.querySelectorAll('[data-testid=stSkeleton], [data-stale=true]').length === 0")
    page.wait_for_timeout(1500)


if __name__ == "__main__":
    main()
