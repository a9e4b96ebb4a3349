"""Whether a dashboard that stays open grows: a federation goes on, and its pages are drawn again and again.

    python -m benchmarks.dashboard_soak [--refreshes 200] [--every 5]

A day at ten seconds is 8640 refreshes. A new round comes with every fifth of them; at the end the memory of the last quarter is
compared with that of the second. The rows themselves may take more, and do: they are counted beside it.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import statistics
import tempfile
from pathlib import Path

from benchmarks.dashboard import PAGES, RUN, drawn, write_round
from brainunet_server.store.writer import StoreWriter
from tests.support.watched import a_run


def resident_mb() -> float:
    """What this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refreshes", type=int, default=200)
    parser.add_argument("--every", type=int, default=5, help="refreshes between two rounds; 0: no round comes")
    parser.add_argument("--sites", type=int, default=5)
    given = parser.parse_args()
    logging.disable(logging.WARNING)

    from brainunet_dashboard import frame, opened
    from brainunet_dashboard.feed import Feed
    from brainunet_dashboard.source import Source

    with tempfile.TemporaryDirectory() as folder, StoreWriter(Path(folder) / "store.sqlite") as writer:
        database = Path(folder) / "store.sqlite"
        writer.start_run(a_run(RUN, rounds=100_000))
        for exchange in range(1, 21):
            write_round(writer, exchange, given.sites)
        opened.source = Source(database)
        feed = Feed(database, fresh_s=0)
        frame._feed = lambda _database: feed
        exchange, memory, rows = 20, list[float](), list[int]()
        for refresh in range(given.refreshes):
            if given.every and refresh % given.every == 0:
                exchange += 1
                write_round(writer, exchange, given.sites)
            drawn(PAGES[refresh % len(PAGES)])
            gc.collect()
            memory.append(resident_mb())
            rows.append(feed.rows_kept)
            if refresh % max(1, given.refreshes // 10) == 0:
                print(f"refresh {refresh:6d}: {memory[-1]:7.1f} MB, {rows[-1]:8d} rows kept", flush=True)
        feed.close()
    quarter = len(memory) // 4
    second, last = (statistics.median(part) for part in (memory[quarter : 2 * quarter], memory[-quarter:]))
    print(f"median of the second quarter {second:.1f} MB, of the last {last:.1f} MB: ratio {last / second:.3f}")
    print(f"rows kept: {rows[quarter]} then, {rows[-1]} at the end")


if __name__ == "__main__":
    main()
