"""Files of clients, batches and their lines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Moment = sa.Double[float]().with_variant(sa.REAL(), "sqlite")
Bytes = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "file",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("bytes", Bytes, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("expires_at", Moment),
        sa.Column("deleted_at", Moment),
        sqlite_strict=True,
    )
    op.create_index("file_by_owner", "file", ["owner", "id"])
    op.create_table(
        "batch",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("input_file_id", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text),
        sa.Column("output_expires_s", sa.Integer),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("in_progress_at", Moment),
        sa.Column("finalizing_at", Moment),
        sa.Column("completed_at", Moment),
        sa.Column("failed_at", Moment),
        sa.Column("expired_at", Moment),
        sa.Column("cancelling_at", Moment),
        sa.Column("cancelled_at", Moment),
        sa.Column("output_file_id", sa.Text),
        sa.Column("error_file_id", sa.Text),
        sa.Column("errors", sa.Text, nullable=False),
        sa.Column("counts", sa.Text),
        sqlite_strict=True,
    )
    op.create_index("batch_by_owner", "batch", ["owner", "id"])
    op.create_index("batch_by_status", "batch", ["status"])
    op.create_table(
        "batch_line",
        sa.Column("batch", sa.Text, sa.ForeignKey("batch.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True),
        sa.Column("custom_id", sa.Text, nullable=False),
        sa.Column("place", Bytes, nullable=False),
        sa.Column("job", sa.Text),
        sa.Column("refusal", sa.Text),
        sqlite_strict=True,
    )
    op.create_index("batch_line_by_job", "batch_line", ["job"])


def downgrade() -> None:
    op.drop_table("batch_line")
    op.drop_table("batch")
    op.drop_table("file")
