"""Jobs and workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out rather than shared with server.tables: a migration says what was true when it was written.
Moment = sa.Double[float]().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("card", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("warnings", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("started_at", Moment),
        sa.Column("completed_at", Moment),
        sa.Column("progress", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("lease_until", Moment),
        sa.Column("cancel_requested_at", Moment),
        sa.Column("deleted_at", Moment),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("job_by_age", "job", ["created_at", "seq"])
    op.create_index("job_by_status", "job", ["status", "deleted_at"])
    op.create_table(
        "worker",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("card", sa.Text),
        sa.Column("job", sa.Text),
        sa.Column("seen_at", Moment, nullable=False),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("worker")
    op.drop_table("job")
