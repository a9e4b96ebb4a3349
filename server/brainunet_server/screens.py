"""What the commands show of a federation: the same facts as JSON, and as text and tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table
from rich.text import Text

from brainunet.certificates import days_left, read_certificate
from brainunet.chain import Entry
from brainunet.moments import day, duration, iso, local
from brainunet_server.federation import Folder
from brainunet_server.roster import Roster
from brainunet_server.status import SiteState, Status
from brainunet_server.store.rows import DownloadRow, ReaderRow

if TYPE_CHECKING:
    from brainunet_server.store.rows import SpendRow

DAYS = ("published", "added")  # columns of dates, which say nothing in two pieces


def site_rows(roster: Roster, states: Iterable[SiteState], now: datetime | None = None) -> list[dict[str, Any]]:
    """A row for each enrolled site, by name; ``states`` are those of a server that runs, none if none does."""
    live = {site.name: site for site in states}
    return [
        {
            "name": name,
            "enrolled_at": iso(line.enrolled_at),
            "days_left": days_left(read_certificate(line.certificate), now),
            "revoked_at": _iso(line.revoked_at),
            "reason": line.reason,
            "public_key_id": line.public_key_id,
            "state": live[name].state if name in live else None,
            "last_seen": _iso(live[name].last_seen if name in live else None),
        }
        for name, line in sorted(roster.sites.items())
    ]


def site_table(rows: Sequence[dict[str, Any]], *, live: bool) -> Table:
    """The rows of :func:`site_rows`; with ``live``, what the running server sees of them."""
    columns = ["site", "enrolled", "certificate", "revoked", *(["state", "last seen"] if live else [])]
    return _table(
        columns,
        (
            [
                row["name"],
                _day(row["enrolled_at"]),
                f"{row['days_left']} days left" if row["days_left"] >= 0 else f"ended {-row['days_left']} days ago",
                f"{_day(row['revoked_at'])}: {row['reason']}" if row["revoked_at"] else "",
                *(
                    [
                        row["state"] or "",
                        local(datetime.fromisoformat(row["last_seen"]), seconds=False) if row["last_seen"] else "",
                    ]
                    if live
                    else []
                ),
            ]
            for row in rows
        ),
    )


def score_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of ``store.reader.dice_by_round``: a line for each round's model, a column for each site."""
    sites = sorted({site for row in rows for site in row["sites"]})
    return _table(
        ["round", *sites, "all"],
        ([str(row["round"]), *(_figure(row["sites"].get(site)) for site in sites), _figure(row["all"])] for row in rows),
    )


def spend_table(rows: Sequence[SpendRow]) -> Table:
    """A row for each site and round of private training, in the order in which they were told."""
    return _table(
        ["site", "run", "round", "steps", "noise", "epsilon", "all runs"],
        (
            [
                row.site,
                row.run_id,
                str(row.round),
                str(row.steps),
                f"{row.noise_multiplier:.3f}",
                f"{row.epsilon:.3f}",
                "" if row.total_epsilon is None else f"{row.total_epsilon:.3f}",
            ]
            for row in rows
        ),
    )


def spend_notes(rows: Sequence[SpendRow]) -> list[str]:
    """How each site counts, a line for all that do so alike: by what its last row says."""
    alike: dict[str, list[str]] = {}
    for site, row in {row.site: row for row in rows}.items():
        total = "" if row.total_delta is None else f", all runs at delta {row.total_delta:g}"
        alike.setdefault(f"epsilon at delta {row.delta:g}{total}; each case in {row.sample_rate:.3g} of the steps", []).append(
            site
        )
    return [f"{', '.join(sorted(sites))}: {words}" for words, sites in sorted(alike.items())]


def _figure(said: Any) -> str:
    if isinstance(said, dict):
        return "none" if said["mean"] is None else f"{said['mean']:.3f} ({said['n']})"
    return f"{said:.3f}" if isinstance(said, float) else said or ""


def release_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of ``releases.release_facts``."""
    withdrawn = ["withdrawn"] if any(row["withdrawn_at"] for row in rows) else []
    return _table(
        ["name", "run", "round", "mean WT", "worst site", "published", "fetched", *withdrawn],
        (
            [
                row["name"],
                row["run"],
                str(row["round"]),
                _figure(row["mean_wt_dice"]) or "no figures",
                f"{row['worst_site']['site']} {row['worst_site']['wt_dice']:.3f}" if row["worst_site"] else "",
                day(row["published_at"]),
                str(row["downloads"]),
                *([_withdrawal(row)] if withdrawn else []),
            ]
            for row in rows
        ),
    )


def _withdrawal(row: dict[str, Any]) -> str:
    return f"{day(row['withdrawn_at'])}: {row['withdrawn_reason']}" if row["withdrawn_at"] else ""


def reader_rows(readers: Sequence[ReaderRow], downloads: Sequence[DownloadRow]) -> list[dict[str, Any]]:
    """A row for each reader, by name, with how many releases it fetched to their end; nothing of its token."""
    return [
        {
            "name": reader.name,
            "added_at": reader.added_at,
            "expires_at": reader.expires_at,
            "revoked_at": reader.revoked_at,
            "downloads": sum(row.whole for row in downloads if row.kind == "reader" and row.who == reader.name),
        }
        for reader in readers
    ]


def reader_table(rows: Sequence[dict[str, Any]], now: datetime | None = None) -> Table:
    """The rows of :func:`reader_rows`."""
    now = now or datetime.now(UTC)
    return _table(
        ["reader", "added", "pass", "fetched"],
        (
            [
                row["name"],
                day(row["added_at"]),
                f"revoked on {day(row['revoked_at'])}"
                if row["revoked_at"]
                else f"{'expired on' if row['expires_at'] <= now else 'until'} {day(row['expires_at'])}",
                str(row["downloads"]),
            ]
            for row in rows
        ),
    )


def status_lines(folder: Folder, status: Status | None, pid: str | None, now: datetime | None = None) -> list[str]:
    """How a federation stands, in sentences; ``pid`` is that of the server that runs now, None if none does."""
    now = now or datetime.now(UTC)
    if status is None:
        return [f"process {pid} serves {folder.path}; it has said nothing yet" if pid else f"no server runs for {folder.path}"]
    heard = f"{local(status.updated_at)}, {ago(status.updated_at, now)}"
    of_rounds = f"run {status.run}, round {status.round} of {status.rounds}" if status.run else "no run yet"
    if pid is None:
        last = f"no server runs for {folder.path}; it was last heard of on {heard}"
        return [shown(line) for line in (last, f"then: {of_rounds}: {status.state}: {status.message}")]
    lines = [f"{of_rounds}: {status.state}", status.message]
    if pid != str(status.pid):
        lines = [f"process {pid} is starting; this was said by an earlier one:", *lines]
    if status.deadline_at is not None:
        left = (status.deadline_at - now).total_seconds()
        how_long = f"in {duration(left)}" if left > 0 else f"{duration(-left)} ago"
        lines.append(f"replies until {local(status.deadline_at, seconds=False)}, {how_long}")
    lines.append(f"at {status.address}, process {status.pid}, last heard of on {heard}; a round takes {status.min_sites} sites")
    return [shown(line) for line in lines]


def status_table(status: Status, now: datetime | None = None) -> Table:
    """A row for each site of a running server."""
    now = now or datetime.now(UTC)
    return _table(
        ["site", "state", "last seen", "last outcome", "client"],
        (
            [
                site.name,
                site.state,
                ago(site.last_seen, now) if site.last_seen else "",
                site.last_outcome or "",
                site.client_version or "",
            ]
            for site in status.sites
        ),
    )


def entry_line(entry: Entry, zone: tzinfo | None = None) -> str:
    """One line of the audit trail; ``zone`` None is this machine's.

    >>> at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> entry_line(Entry(7, at, "site-revoked", {"site": "north", "reason": "left us"}, "0" * 64, "f" * 64), UTC)
    '    7  2026-03-01 12:00:00+00:00  site-revoked  site=north reason="left us"'
    """
    facts = " ".join(f"{key}={_value(value)}" for key, value in entry.data.items())
    return shown(f"{entry.number:5d}  {local(entry.at, zone)}  {entry.kind}  {facts}".rstrip())


def entry_facts(entry: Entry) -> dict[str, Any]:
    """One entry as the file holds it."""
    return {
        "n": entry.number,
        "at": entry.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "kind": entry.kind,
        "data": dict(entry.data),
        "prev": entry.previous,
        "hash": entry.digest,
    }


def ago(moment: datetime, now: datetime) -> str:
    """How long before ``now``; a clock may have been set back meanwhile.

    >>> ago(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
    '1 day ago'
    """
    seconds = (now - moment).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 0 else "in the future: a clock was changed"


def shown(text: str) -> str:
    """Text of others as a terminal may print it: characters that could steer the terminal become question marks.

    >>> shown("north" + chr(27) + "[2J")
    'north?[2J'
    """
    return "".join(character if character.isprintable() else "?" for character in text)


def _value(value: Any) -> str:
    if isinstance(value, str) and value and " " not in value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    # folded where the terminal is narrow: a name that lost its end can't be typed again
    table = Table(*(Column(column, overflow="fold", no_wrap=column in DAYS) for column in columns))
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))  # as Text, so that nothing in it is read as markup
    return table


def _iso(moment: datetime | None) -> str | None:
    return iso(moment) if moment else None


def _day(told: str) -> str:
    return day(datetime.fromisoformat(told))
