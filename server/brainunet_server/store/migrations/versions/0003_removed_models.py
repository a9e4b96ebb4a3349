"""When a model's file was removed to make room; its row stays."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("models", sa.Column("removed_at", sa.DateTime(timezone=True)))
