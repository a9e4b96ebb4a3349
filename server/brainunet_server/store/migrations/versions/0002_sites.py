"""The sites as they are now; of a site's round, its update's length and digest, and whether its figures were withheld."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("site_rounds", sa.Column("withheld", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("site_rounds", sa.Column("update_norm", sa.Double()))
    op.add_column("site_rounds", sa.Column("update_digest", sa.Text()))
    op.create_table(
        "sites",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True)),
        sa.Column("certificate_expires_at", sa.DateTime(timezone=True)),
        sa.Column("client_version", sa.Text()),
        sa.Column("enrolled_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("name", name="pk_sites"),
    )
