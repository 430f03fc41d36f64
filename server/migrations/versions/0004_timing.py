"""What jobs took, so that others' length can be predicted: by the next worker and by the API."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Moment = sa.Double[float]().with_variant(sa.REAL(), "sqlite")
Bytes = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "timing",
        sa.Column("card", sa.Text, primary_key=True),
        sa.Column("device", sa.Text, primary_key=True),
        sa.Column("use", sa.Text, primary_key=True),
        sa.Column("frames", sa.Integer, primary_key=True),
        sa.Column("height", sa.Integer, primary_key=True),
        sa.Column("width", sa.Integer, primary_key=True),
        sa.Column("steps", sa.Integer, primary_key=True),
        sa.Column("stage_s", sa.Text, nullable=False),
        sa.Column("peak_memory_bytes", Bytes, nullable=False),
        sa.Column("updated_at", Moment, nullable=False),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("timing")
