"""Where a run stands, and what each site did in each exchange."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from types import MappingProxyType
from typing import Any, Final

from brainunet_server.store.reader import Model, Run, SiteRound, SiteSeen

SILENT_AFTER: Final = timedelta(minutes=3)  # the server writes how its sites are every quarter of a minute
ROUNDS_OF_A_PACE: Final = 5
SECONDS_OF_A_DAY: Final = 86_400

# How a site fared in an exchange, best first; "withheld" is an answer without figures.
OUTCOMES: Final = ("answered", "withheld", "late", "refused", "fault", "absent", "not asked")


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        round: the exchange in progress or the last one that is complete, from 1; 0 before the first.
        of: how many are planned; one more only scores the last model.
        left_s: at the pace of the last rounds, None where there is none yet or nothing is left.
    """

    round: int
    of: int
    is_running: bool
    left_s: float | None


def progress(run: Run, models: Sequence[Model], now: datetime) -> Progress:
    """How far a run is, by the models it has made.

    >>> from datetime import UTC
    >>> start = datetime(2026, 3, 1, tzinfo=UTC)
    >>> run = Run(id="r", kind="federation", strategy="fedavg", preset="p", norm="group", rounds=9, seed=0, config="{}",
    ...     config_sha256="0", started_at=start)
    >>> progress(run, [], start)
    Progress(round=1, of=9, is_running=True, left_s=None)
    """
    made = {model.round: model.made_at for model in models}
    done = max(made, default=0)
    running = run.status == "running"
    if not running:
        return Progress(min(done, run.rounds), run.rounds, False, None)
    moments = [made[number] for number in sorted(made)][-ROUNDS_OF_A_PACE - 1 :]
    paces = [(after - before).total_seconds() for before, after in pairwise(moments)]
    left = None
    if paces and run.rounds > done:
        one = median(paces)
        waited = max(0.0, (now - moments[-1]).total_seconds())
        left = max(0.0, one - waited) + one * (run.rounds - done - 1)
    return Progress(min(done + 1, run.rounds), run.rounds, True, left)


@dataclass(frozen=True)
class Attendance:
    """Names of sites by what they are doing, each in one place; ``known`` is False where only exchanges tell."""

    online: Sequence[str]
    late: Sequence[str]
    lost: Sequence[str]
    never: Sequence[str] = ()


def attendance(
    seen: Sequence[SiteSeen], exchanges: Sequence[SiteRound], now: datetime, *, ended_at: datetime | None
) -> Attendance:
    """Who is there: by the server's last word of each site, or of a simulation by the last exchange.

    Args:
        ended_at: when the run ended; what was there then counts. None while it runs.
    """
    last = last_exchange(exchanges)
    slow = {row.site for row in last if row.outcome == "late"}
    if not seen:
        lost = sorted(row.site for row in last if row.outcome in ("absent", "fault"))
        online = sorted(row.site for row in last if row.site not in slow and row.site not in lost)
        return Attendance(online, sorted(slow), lost)
    moment = ended_at or now
    online, late, lost, never = [], [], [], []
    for site in seen:
        if site.state == "revoked":
            continue
        if site.last_seen_at is None:
            never.append(site.name)
        elif site.state == "silent" or moment - site.last_seen_at > SILENT_AFTER:
            lost.append(site.name)
        elif site.name in slow:
            late.append(site.name)
        else:
            online.append(site.name)
    return Attendance(online, late, lost, never)


def last_exchange(exchanges: Sequence[SiteRound]) -> list[SiteRound]:
    number = exchanges[-1].round if exchanges else None
    return [row for row in exchanges if row.round == number]


def site_table(
    seen: Sequence[SiteSeen], exchanges: Sequence[SiteRound], names: Iterable[str], now: datetime
) -> list[dict[str, Any]]:
    """A row for each site that took part in the run or is enrolled, by name, and what it did last.

    Args:
        exchanges: those of training: one that only scores the last model has other seconds and bytes.
    """
    last: dict[str, SiteRound] = {}
    refusal: dict[str, SiteRound] = {}
    answers: dict[str, int] = {}
    for row in exchanges:
        last[row.site] = row
        answers[row.site] = answers.get(row.site, 0) + (row.outcome == "answered")
        if row.outcome in ("refused", "fault"):
            refusal[row.site] = row
    states = {site.name: site for site in seen}
    rows = []
    for name in sorted({*names, *last, *states}):
        state, did, refused = states.get(name), last.get(name), refusal.get(name)
        expires = state.certificate_expires_at if state else None
        rows.append(
            {
                "site": name,
                "state": state.state if state else None,
                "last_seen": state.last_seen_at if state else None,
                "version": (state.client_version if state else None) or (did.client_version if did else None),
                "train": did.cases_train if did else None,
                "validation": did.cases_validation if did else None,
                "certificate_days": int((expires - now).total_seconds() // SECONDS_OF_A_DAY) if expires else None,
                "round": did.round if did else None,
                "outcome": outcome_of(did) if did else None,
                "seconds": did.seconds if did else None,
                "bytes_down": did.bytes_down if did else None,
                "bytes_up": did.bytes_up if did else None,
                "answers": answers.get(name, 0),
                "refusal": f"round {refused.round}: {reason_of(refused)}" if refused else None,
            }
        )
    return rows


def outcome_of(row: SiteRound) -> str:
    """
    >>> outcome_of(SiteRound(run_id="r", round=1, site="s", outcome="answered", withheld=True))
    'withheld'
    """
    return "withheld" if row.withheld and row.outcome == "answered" else row.outcome


def reason_of(row: SiteRound) -> str:
    """Why a site's part was not used, in words; codes of faults read as such.

    >>> reason_of(SiteRound(run_id="r", round=1, site="s", outcome="fault", reason="out_of_memory"))
    'out of memory'
    """
    reason = row.reason or "no reason told"
    return FAULTS.get(reason, reason.replace("_", " ")) if row.outcome == "fault" else reason


FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "no_usable_cases": "the site finds no case that it can use",
        "task_not_understood": "the site's program can't read the task: another version",
        "model_does_not_fit": "the site's program knows no such network, loss or setting",
        "training_diverged": "the loss is no longer a number: a lower learning rate, in a new run",
        "outside_hours": "the site may not train at this hour",
        "too_late": "it takes longer than rounds.deadline_s",
        "site_not_ready": "the site's own settings, kit or register can't be read",
        "privacy_refused": "the site's rules of privacy forbid it",
        "budget_spent": "the site's budget of privacy bears no further round; it only evaluates",
        "internal": "an unforeseen error; client.log at the site says more",
    }
)


def refusals(exchanges: Iterable[SiteRound]) -> list[dict[str, Any]]:
    """A row for each part of a site that did not enter a model, the latest first."""
    return [
        {"round": row.round, "site": row.site, "outcome": row.outcome, "reason": reason_of(row)}
        for row in sorted(exchanges, key=lambda row: (-row.round, row.site))
        if row.outcome != "answered"
    ]


@dataclass(frozen=True)
class Grid:
    """Sites x rounds: ``cells[i][j]`` is the outcome of site i in round j, ``told[i][j]`` it in words."""

    sites: Sequence[str]
    rounds: Sequence[int]
    cells: Sequence[Sequence[str]]
    told: Sequence[Sequence[str]]


def outcome_grid(exchanges: Sequence[SiteRound]) -> Grid:
    """What each site did in each exchange; a site that has no row of it was not asked."""
    rows = {(row.site, row.round): row for row in exchanges}
    sites, numbers = sorted({row.site for row in exchanges}), sorted({row.round for row in exchanges})
    found = [[rows.get((site, number)) for number in numbers] for site in sites]
    cells = [[outcome_of(row) if row else "not asked" for row in line] for line in found]
    told = [[_told(row) for row in line] for line in found]
    return Grid(sites, numbers, cells, told)


def _told(row: SiteRound | None) -> str:
    if row is None:
        return "not asked"
    outcome = outcome_of(row)
    return outcome if outcome in ("answered", "withheld") else f"{outcome}: {reason_of(row)}"


def traffic(exchanges: Iterable[SiteRound], price_per_gb: float | None = None) -> list[dict[str, Any]]:
    """A row for each site, by name: bytes both ways over all rounds, and what they cost; GB are 10^9 bytes."""
    sums: dict[str, tuple[int, int, int]] = {}
    for row in exchanges:
        down, up, rounds = sums.get(row.site, (0, 0, 0))
        sums[row.site] = (down + row.bytes_down, up + row.bytes_up, rounds + 1)
    return [
        {
            "site": site,
            "rounds": rounds,
            "bytes_down": down,
            "bytes_up": up,
            "bytes": down + up,
            "cost": None if price_per_gb is None else (down + up) / 1e9 * price_per_gb,
        }
        for site, (down, up, rounds) in sorted(sums.items())
    ]


def bytes_by_round(exchanges: Iterable[SiteRound]) -> dict[str, list[tuple[int, int, int]]]:
    """Site -> (round, bytes both ways in it, bytes until then), by name and round."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    for row in sorted(exchanges, key=lambda row: (row.site, row.round)):
        own = found.setdefault(row.site, [])
        number = row.bytes_down + row.bytes_up
        own.append((row.round, number, number + (own[-1][2] if own else 0)))
    return found
