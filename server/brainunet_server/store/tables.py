"""The tables as they are today; ``migrations/versions`` brings a database there, and a test holds the two together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Dialect, Double, ForeignKey, Integer, MetaData, Table, Text, false
from sqlalchemy.types import TypeDecorator

# Every constraint has a name, because a later migration can only drop what it can name.
metadata: Final = MetaData(naming_convention={"pk": "pk_%(table_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s"})


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time; SQLite has no time zones, so UTC goes in and is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


runs: Final = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("parent_id", ForeignKey("runs.id")),
    Column("site", Text),
    Column("strategy", Text, nullable=False),
    Column("preset", Text, nullable=False),
    Column("norm", Text, nullable=False),
    Column("rounds", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("config", Text, nullable=False),
    Column("config_sha256", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("status", Text, nullable=False),
)

site_rounds: Final = Table(
    "site_rounds",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("site", Text, primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("cases_train", Integer),
    Column("cases_validation", Integer),
    Column("loss", Double),
    Column("seconds", Double),
    Column("bytes_down", BigInteger, nullable=False),
    Column("bytes_up", BigInteger, nullable=False),
    Column("client_version", Text),
    Column("withheld", Boolean, nullable=False, server_default=false()),
    Column("update_norm", Double),
    Column("update_digest", Text),
)

scores: Final = Table(
    "scores",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("site", Text, primary_key=True),
    Column("structure", Text, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("mean", Double),
    Column("median", Double),
    Column("n", Integer, nullable=False),
    Column("missing", Integer, nullable=False),
)

models: Final = Table(
    "models",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("file", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("n_bytes", BigInteger, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("removed_at", UtcDateTime),
)

spends: Final = Table(
    "spends",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("site", Text, primary_key=True),
    Column("epsilon", Double, nullable=False),
    Column("delta", Double, nullable=False),
    Column("noise_multiplier", Double, nullable=False),
    Column("sample_rate", Double, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("accountant", Text, nullable=False),
    Column("total_epsilon", Double),
    Column("total_delta", Double),
    Column("ledger_head", Text, nullable=False),
    Column("ledger_entries", Integer, nullable=False),
    Column("told_at", UtcDateTime, nullable=False),
)

sites: Final = Table(
    "sites",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("last_seen_at", UtcDateTime),
    Column("certificate_expires_at", UtcDateTime),
    Column("client_version", Text),
    Column("enrolled_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
)

releases: Final = Table(
    "releases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("file", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("n_bytes", BigInteger, nullable=False),
    Column("weights_sha256", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("published_at", UtcDateTime, nullable=False),
    Column("withdrawn_at", UtcDateTime),
    Column("withdrawn_reason", Text),
)

readers: Final = Table(
    "readers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("token_sha256", Text, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)

# The moment is a part of the key, so that a row that is written twice (see committing) is there once.
downloads: Final = Table(
    "downloads",
    metadata,
    Column("release", ForeignKey("releases.name"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("who", Text, primary_key=True),
    Column("at", UtcDateTime, primary_key=True),
    Column("n_bytes", BigInteger, nullable=False),
    Column("whole", Boolean, nullable=False),
)
