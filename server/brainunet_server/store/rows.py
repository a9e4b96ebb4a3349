"""The rows of the store as frozen dataclasses that check themselves: a row that exists may be stored.

SQLite takes almost anything (it turns NaN into NULL and a numpy scalar into bytes, without a word), so types, ranges
and finiteness are settled here, alike for both databases. A bad value is a ``ValueError`` (pydantic's): it's a bug.

Two counts are both called ``round``. In :class:`Score` and :class:`Model` it is the model's: 0 is the model that the
run started from, k the model after exchange k. In :class:`SiteRound` it is the exchange's, from 1: exchange k scores
model k - 1 and makes model k; after R rounds, exchange R + 1 only scores the last model.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import AwareDatetime, ConfigDict, Field, FiniteFloat
from pydantic.dataclasses import dataclass

from brainunet.records import Count, Name, Seconds, Structure

Kind: TypeAlias = Literal["federation", "simulation", "local"]
Ending: TypeAlias = Literal["completed", "interrupted", "failed"]
Status: TypeAlias = Literal["running"] | Ending
Outcome: TypeAlias = Literal["answered", "fault", "refused", "late", "absent"]

SiteState: TypeAlias = Literal["working", "connected", "silent", "never seen", "revoked"]

Round = Annotated[int, Field(ge=0, le=1_000_000)]
Int64 = Annotated[int, Field(ge=0, lt=2**63)]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]  # PostgreSQL has no NUL in text
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Run:
    """One training from a first model to a last: of a federation, of a simulated one, or of one site alone.

    Attributes:
        parent_id: of a local baseline, the simulation that it is compared with.
        site: of a local baseline, the site that trains alone.
        rounds: how many are planned.
        config: the resolved settings as JSON; config_sha256 is ``brainunet.config.sha256_of`` them.
        finished_at: None while it runs.
    """

    id: Text
    kind: Kind
    parent_id: Text | None = None
    site: Text | None = None
    strategy: Text
    preset: Text
    norm: Text
    rounds: Round
    seed: Int64
    config: Text
    config_sha256: Text
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    status: Status = "running"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SiteRound:
    """What one site did in one exchange; a figure is None where the site sent none.

    Attributes:
        withheld: too few validation cases to tell figures of, so there are no scores of it.
        update_norm: Euclidean length of the change that it sent; update_digest is that of the change.
    """

    run_id: Text
    round: Annotated[Round, Field(ge=1)]
    site: Text
    outcome: Outcome
    reason: Text | None = None
    cases_train: Count | None = None
    cases_validation: Count | None = None
    loss: FiniteFloat | None = None
    seconds: Seconds | None = None
    bytes_down: Int64 = 0
    bytes_up: Int64 = 0
    client_version: Text | None = None
    withheld: bool = False
    update_norm: Annotated[FiniteFloat, Field(ge=0)] | None = None
    update_digest: Text | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Score:
    """One metric of one model over a site's validation cases: ``n`` have a value, ``missing`` have none."""

    run_id: Text
    round: Round
    site: Text
    structure: Structure
    metric: Text
    mean: FiniteFloat | None
    median: FiniteFloat | None
    n: Count
    missing: Count


class Figure(NamedTuple):
    """A score of one run and metric, light enough to hold hundreds of thousands; it was checked when it was stored."""

    round: int
    site: str
    structure: str
    mean: float | None
    median: float | None
    n: int
    missing: int


class Extent(NamedTuple):
    """What some rows add up to: as long as it is the same, nobody has changed them.

    Attributes:
        last: the highest round among them, None without any.
        total: a sum over their values.
    """

    rows: int
    last: int | None
    total: int


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Model:
    """A model that was saved.

    Attributes:
        digest: of its weights.
        removed_at: when its file was removed to make room; None while it is there.
    """

    run_id: Text
    round: Round
    file: Text
    digest: Text
    n_bytes: Int64
    made_at: AwareDatetime
    removed_at: AwareDatetime | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SpendRow:
    """What a site's private training of one exchange has cost (see ``brainunet.records.PrivacySpend``).

    It stays when a run goes back to an earlier round: what left the site has left it.

    Attributes:
        told_at: when the coordinator learnt of it; the head of a site that was told last goes with its next task.
    """

    run_id: Text
    round: Annotated[Round, Field(ge=1)]
    site: Text
    epsilon: Annotated[FiniteFloat, Field(ge=0)]
    delta: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    noise_multiplier: Annotated[FiniteFloat, Field(ge=0)]
    sample_rate: Annotated[FiniteFloat, Field(ge=0, le=1)]
    steps: Count
    accountant: Text
    total_epsilon: Annotated[FiniteFloat, Field(ge=0)] | None = None
    total_delta: Annotated[FiniteFloat, Field(gt=0, lt=1)] | None = None
    ledger_head: str = ""
    ledger_entries: Count = 0
    told_at: AwareDatetime


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SiteSeen:
    """A site of the federation as the coordinator sees it now, whatever run it takes part in.

    Attributes:
        last_seen_at: None while it never was.
        certificate_expires_at: of the certificate with which it may connect.
    """

    name: Text
    state: SiteState
    last_seen_at: AwareDatetime | None = None
    certificate_expires_at: AwareDatetime | None = None
    client_version: Text | None = None
    enrolled_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReleaseRow:
    """A model that was published. Only its withdrawal is ever added; all else stays as it is.

    Attributes:
        round: the model's.
        file: relative to the federation's folder.
        sha256: of the whole file; weights_sha256 is the digest of its weights.
        notes: what the coordinator says of it, in words; may be empty.
        withdrawn_at: when it was withdrawn, and withdrawn_reason why; None while it may be fetched.
    """

    name: Name
    run_id: Text
    round: Round
    file: Text
    sha256: Sha256
    n_bytes: Int64
    weights_sha256: Sha256
    notes: Annotated[str, Field(pattern=r"^[^\x00]*$")] = ""
    published_at: AwareDatetime
    withdrawn_at: AwareDatetime | None = None
    withdrawn_reason: Text | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReaderRow:
    """Somebody who is no site and may fetch published models.

    Attributes:
        token_sha256: of the token in the reader's pass; the token itself is nowhere here.
        revoked_at: since when it is refused; None while it may be used.
    """

    name: Name
    token_sha256: Sha256
    added_at: AwareDatetime
    expires_at: AwareDatetime
    revoked_at: AwareDatetime | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DownloadRow:
    """One time that somebody fetched a release, whole or a part of it.

    Attributes:
        who: the site's or reader's name, as ``kind`` says.
        at: when it began.
        n_bytes: how many were sent.
        whole: with these the file was sent to its end.
    """

    release: Name
    who: Name
    kind: Literal["site", "reader"]
    at: AwareDatetime
    n_bytes: Int64
    whole: bool
