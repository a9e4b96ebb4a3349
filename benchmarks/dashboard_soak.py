"""Whether a dashboard that stays open grows: its real server, with four pages open in Chromium and refreshed each second.

    python -m benchmarks.dashboard_soak [--minutes 3] [--round-every 20]

An open page is refreshed 8640 times a day; with four pages, three minutes are 720 refreshes. A federation goes on meanwhile,
and at the end the first page has to show its last round. The server's memory in the last quarter is compared with that in the
second: the first is Streamlit's warming up.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.dashboard import RUN, write_round
from brainunet_dashboard.pages import PAGES
from brainunet_server.store.writer import StoreWriter
from tests.support.watched import a_run

DASHBOARD = [sys.executable, "-c", "from brainunet_dashboard.cli import main; main()"]
SAMPLE_S = 5.0
OPEN = PAGES[:4]


def resident_mb(pid: int) -> float:
    """What a process holds now (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--round-every", type=float, default=20, help="seconds between two rounds; 0: none comes")
    parser.add_argument("--sites", type=int, default=5)
    given = parser.parse_args()
    chromium = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        sys.exit("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, StoreWriter(Path(folder) / "store.sqlite") as writer:
        writer.start_run(a_run(RUN, rounds=100_000))
        exchange = 20
        for number in range(1, exchange + 1):
            write_round(writer, number, given.sites)
        command = [*DASHBOARD, folder, "--port", "0", "--refresh", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
            try:
                assert server.stdout is not None
                found = re.search(r"open (http://\S+) ", server.stdout.readline())
                assert found is not None
                time.sleep(2)
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                watched = [browser.new_page() for _ in OPEN]
                for tab, page in zip(watched, OPEN, strict=True):
                    tab.goto(f"{found[1]}/{'' if page is PAGES[0] else page.path}", wait_until="commit")
                memory: list[float] = []
                first = exchange
                began = time.monotonic()
                next_round = began + (given.round_every or 1e12)
                while (now := time.monotonic()) < began + 60 * given.minutes:
                    if now >= next_round:
                        exchange += 1
                        next_round = now + given.round_every
                        write_round(writer, exchange, given.sites)
                    memory.append(resident_mb(server.pid))
                    if len(memory) % 6 == 1:
                        refreshes = int((now - began) * len(OPEN))
                        print(f"{now - began:6.0f} s, about {refreshes:6d} refreshes: {memory[-1]:7.1f} MB", flush=True)
                    time.sleep(SAMPLE_S)
                watched[0].get_by_text(f"{exchange + 1} of 100000").wait_for(timeout=30_000)
                browser.close()
            finally:
                server.terminate()
                server.wait(30)  # before its output is closed: it says that it stops
    quarter = len(memory) // 4
    second, last = (statistics.median(part) for part in (memory[quarter : 2 * quarter], memory[-quarter:]))
    brought = exchange - first
    print(f"median of the second quarter {second:.1f} MB, of the last {last:.1f} MB: ratio {last / second:.3f}")
    print(f"{brought} rounds of {given.sites} sites came, and the open page shows the last of them")


if __name__ == "__main__":
    main()
