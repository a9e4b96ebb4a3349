"""What left this hospital, when, for whom and by what right: a hash-chained log that stays here.

An entry is written before what it tells of leaves, so that a crash can only make the ledger tell of more than left. It holds
figures that left and no others: no case id, no path.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from brainunet import chain
from brainunet.chain import JSON, Entry
from brainunet.errors import BrainUNetError, ConfigError, PrivacyError
from brainunet.moments import local
from brainunet.records import FaultCode, Reply
from brainunet_client.home import Home

SENT: Final = "sent"
REQUEST_MADE: Final = "request-made"
KIT_INSTALLED: Final = "kit-installed"
CONSENT_CHANGED: Final = "consent-changed"
BUNDLE_REFUSED: Final = "bundle-refused"
PRIVACY_SETTLED: Final = "privacy-settled"

Figure: TypeAlias = float | FaultCode | None


@dataclass(frozen=True)
class Totals:
    """All transfers of a ledger: how many, their bytes, and how many of each kind and to each run."""

    transfers: int
    n_bytes: int
    kinds: Mapping[str, int]
    runs: Mapping[str, int]


def record_sent(
    home: Home,
    *,
    server: str,
    federation: str,
    run: str,
    round: int,
    kind: str,
    n_bytes: int,
    digest: str,
    figures: Mapping[str, Any],
    purpose: str,
    legal_basis: str,
) -> Entry:
    """Write down a message that is about to leave; call it before the first byte is sent.

    Args:
        home: whose ledger.
        server: where it goes, ``host:port``.
        federation: whose server that is.
        run: the run it belongs to.
        round: the round of that run.
        kind: the kind of message, such as ``train_reply``.
        n_bytes: its size as it leaves.
        digest: SHA-256 of it.
        figures: the numbers in it, such as ``figures_of`` gives: numbers, None, fault codes, and mappings of these.
        purpose: what the transfer is for; legal_basis: what allows it (both from the site's settings).

    Raises:
        PrivacyError: a text among the figures: it could name a patient.
        ChainBroken, BrainUNetError: the ledger can't be continued; then nothing may be sent.
    """
    _require_numbers(figures)
    data: dict[str, JSON] = {
        "server": server,
        "federation": federation,
        "run": run,
        "round": round,
        "message": kind,
        "bytes": n_bytes,
        "sha256": digest,
        "figures": dict(figures),
        "purpose": purpose,
        "legal_basis": legal_basis,
    }
    return chain.append(home.ledger, SENT, data)


def record_request(home: Home, *, site: str, server: str, fingerprint: str, new_key: bool) -> Entry:
    """A request was made for a person to send; it holds a name and a public key."""
    data: dict[str, JSON] = {"site": site, "server": server, "fingerprint": fingerprint, "new_key": new_key}
    return chain.append(home.ledger, REQUEST_MADE, data)


def record_kit(home: Home, *, federation: str, site: str, server: str, fingerprint: str, replaces: bool) -> Entry:
    """A kit was confirmed: from now on this site knows that server. ``replaces``: it knew another federation before."""
    data: dict[str, JSON] = {
        "federation": federation,
        "site": site,
        "server": server,
        "fingerprint": fingerprint,
        "replaces": replaces,
    }
    return chain.append(home.ledger, KIT_INSTALLED, data)


def record_refused_bundle(home: Home, *, server: str, federation: str) -> Entry:
    """The server's app bundle is refused, and the server is about to be told so, in Flower's words that are always the same."""
    return chain.append(home.ledger, BUNDLE_REFUSED, {"server": server, "federation": federation})


def record_consent(home: Home, *, listed: int, excluded: int) -> Entry | None:
    """Write down that the register of excluded cases has changed; None if it is as it was at the last such entry.

    Args:
        home: whose ledger and register.
        listed: entries of the register.
        excluded: cases of the site that they take out.

    Raises:
        ChainBroken, BrainUNetError: the ledger can't be read or continued.
    """
    changed = None  # the file's own date shows a change that leaves both numbers as they were
    if home.consent.exists():
        changed = datetime.fromtimestamp(home.consent.stat().st_mtime, UTC).isoformat(timespec="seconds")
    data: dict[str, JSON] = {"listed": listed, "excluded": excluded, "file_changed_at": changed}
    before = last_of(home, CONSENT_CHANGED)
    if data == (dict(before.data) if before else {"listed": 0, "excluded": 0, "file_changed_at": changed}):
        return None
    return chain.append(home.ledger, CONSENT_CHANGED, data)


def record_settled(home: Home, *, carried_steps: int, aside: bool) -> Entry:
    """A person has decided that private training goes on, though its ledger was stopped; ``aside``: with a new one."""
    return chain.append(home.ledger, PRIVACY_SETTLED, {"carried_steps": carried_steps, "aside": aside})


def entries_told(home: Home) -> int:
    """How many entries the ledger of spending had when its head was told last; 0 if it never was, or since it was settled.

    Raises:
        ChainBroken, BrainUNetError: this ledger was changed or can't be read.
    """
    told = 0
    for entry in chain.entries(home.ledger):
        if entry.kind == PRIVACY_SETTLED:
            told = 0
        elif entry.kind == SENT:
            told = entry.data["figures"].get("spend.ledger_entries") or told
    return int(told)


def require_kept(home: Home) -> None:
    """Pass if the ledger is where it must be: a home with a kit has one that begins with how the kit came.

    Raises:
        BrainUNetError: it is gone, or empty.
    """
    if home.kit.exists() and (not home.ledger.exists() or home.ledger.stat().st_size == 0):
        raise BrainUNetError(
            home.ledger,
            found="it is gone or empty, in a home that has a kit",
            expected="the ledger that began with it",
            remedy="put it back from your backup, and find out who removed it: without it nobody can say what has left",
        )
    if not home.path.is_dir():
        raise ConfigError(
            str(home.path), found="no such folder", expected="the client's folder", remedy="name it by --home DIR"
        )


def last_of(home: Home, kind: str) -> Entry | None:
    """The last entry of a kind.

    Raises:
        ChainBroken, BrainUNetError: the ledger was changed or can't be read.
    """
    found = None
    for entry in chain.entries(home.ledger):
        found = entry if entry.kind == kind else found
    return found


def figures_of(reply: Reply) -> dict[str, Figure]:
    """Every number that a reply tells, by a flat name; what else is in it are weights and the names of run and program.

    >>> from brainunet.records import Fault
    >>> figures_of(Fault(run="glioma-1", round=2, code=FaultCode.DISK_FULL))
    {'code': <FaultCode.DISK_FULL: 'disk_full'>}
    """
    return dict(_numbers("", reply.model_dump(exclude={"protocol", "round"})))


def _numbers(name: str, value: Any) -> Iterator[tuple[str, Figure]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            rows = isinstance(inner, list | tuple)  # of a score, each named by what it is about
            yield from _numbers(name if rows else f"{name}.{key}".lstrip("."), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(f"{name}.{inner['structure']}.{inner['metric']}", inner)
    elif value is None or isinstance(value, int | float | FaultCode):
        yield name, value


def _require_numbers(figures: Mapping[str, Any]) -> None:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            _require_numbers(value)
        elif not (value is None or isinstance(value, FaultCode | int) or (isinstance(value, float) and math.isfinite(value))):
            raise PrivacyError(
                "ledger",
                found=f"a figure {name} that is no number ({type(value).__name__})",
                expected="numbers: a text could name a patient",
                remedy="nothing was sent; tell the makers of this program",
            )


def totals(entries: Iterable[Entry]) -> Totals:
    """Sums over the transfers among these entries; all 0 without any."""
    sent = [entry.data for entry in entries if entry.kind == SENT]
    return Totals(
        transfers=len(sent),
        n_bytes=sum(data["bytes"] for data in sent),
        kinds=dict(Counter(data["message"] for data in sent)),
        runs=dict(Counter(data["run"] for data in sent)),
    )


def sentence(entry: Entry) -> str:
    """One line for people: number, time in this machine's zone, and what happened."""
    try:
        text = _SENTENCES[entry.kind](entry.data)
    except LookupError:  # of another version of this program
        text = f"{entry.kind}: " + ", ".join(f"{name} {value}" for name, value in entry.data.items())
    # what was typed into settings can hold anything, and a terminal obeys some of it
    safe = "".join(character if character.isprintable() else "?" for character in text)
    return f"{entry.number:>5}  {local(entry.at)}  {safe}"


def _sent(data: Mapping[str, Any]) -> str:
    what = f"sent {data['message'].replace('_', ' ')} of round {data['round']} (run {data['run']})"
    where = f"to {data['server']} (federation {data['federation']}): {data['bytes']} bytes, sha256 {data['sha256'][:12]}"
    return f"{what} {where}; purpose: {data['purpose']}; legal basis: {data['legal_basis']}"


def _request(data: Mapping[str, Any]) -> str:
    key = "with a new key" if data["new_key"] else "with the key it had"
    return f"made a request to enrol as {data['site']} at {data['server']}, {key}; fingerprint {data['fingerprint']}"


def _kit(data: Mapping[str, Any]) -> str:
    instead = ", instead of another federation's" if data["replaces"] else ""
    return (
        f"installed the kit of {data['site']} for federation {data['federation']} at {data['server']}{instead}; "
        f"fingerprint {data['fingerprint']}"
    )


def _refused_bundle(data: Mapping[str, Any]) -> str:
    return f"refused the app bundle of {data['server']} (federation {data['federation']}), and told it so; no figure left"


def _settled(data: Mapping[str, Any]) -> str:
    how = "in a new ledger, the earlier one set aside" if data["aside"] else "in its ledger"
    return f"privacy: somebody here decided to go on {how}; {data['carried_steps']} steps were added by hand"


def _consent(data: Mapping[str, Any]) -> str:
    changed = (
        f"; register changed at {_local(data['file_changed_at'])}" if data["file_changed_at"] else "; the register is gone"
    )
    return f"consent: {data['listed']} ids in the register, {data['excluded']} cases taken out{changed}"


def _local(told: str) -> str:
    try:
        return local(datetime.fromisoformat(told))
    except (ValueError, TypeError):  # a ledger says what was typed into it
        return str(told)


def _torn(data: Mapping[str, Any]) -> str:
    return f"a line that was cut short ({data['bytes']} bytes) was set aside beside the ledger"


_SENTENCES: Final = {
    SENT: _sent,
    REQUEST_MADE: _request,
    KIT_INSTALLED: _kit,
    CONSENT_CHANGED: _consent,
    BUNDLE_REFUSED: _refused_bundle,
    PRIVACY_SETTLED: _settled,
    chain.TORN: _torn,
}
