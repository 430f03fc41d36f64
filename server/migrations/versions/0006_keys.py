"""API keys, files that go before their rows, and workers that wait for space."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

Moment = sa.Double[float]().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("max_queued", sa.Integer),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("revoked_at", Moment),
        sqlite_strict=True,
    )
    op.add_column("job", sa.Column("purged_at", Moment))
    op.create_index("job_by_expiry", "job", ["purged_at", "expires_at"])
    op.add_column("worker", sa.Column("paused", sa.Text))


def downgrade() -> None:
    op.drop_column("worker", "paused")
    op.drop_index("job_by_expiry", "job")
    op.drop_column("job", "purged_at")
    op.drop_table("api_key")
