"""Keys of requests that may be repeated, and characters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Moment = sa.Double[float]().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    op.drop_index("job_by_idempotency_key", "job")
    op.drop_column("job", "idempotency_key")
    op.create_table(
        "idempotency_key",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("used_at", Moment, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("idempotency_key_by_age", "idempotency_key", ["used_at"])
    op.create_table(
        "character",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("character_by_owner", "character", ["owner", "id"])


def downgrade() -> None:
    op.drop_table("character")
    op.drop_table("idempotency_key")
    op.add_column("job", sa.Column("idempotency_key", sa.Text))
    op.create_index("job_by_idempotency_key", "job", ["owner", "idempotency_key"], unique=True)
