"""Who a job belongs to, what it came from, and how a repeated request for it is recognised."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Moment = sa.Double[float]().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    op.add_column("job", sa.Column("owner", sa.Text, nullable=False, server_default=""))
    op.add_column("job", sa.Column("group_id", sa.Text))
    op.add_column("job", sa.Column("metadata", sa.Text, nullable=False, server_default="{}"))
    op.add_column("job", sa.Column("origin", sa.Text))
    op.add_column("job", sa.Column("digest", sa.Text))
    op.add_column("job", sa.Column("idempotency_key", sa.Text))
    op.add_column("job", sa.Column("expires_at", Moment))
    op.add_column("job", sa.Column("starred", sa.Integer, nullable=False, server_default="0"))
    op.create_index("job_by_owner", "job", ["owner", "id"])
    op.create_index("job_by_group", "job", ["group_id"])
    op.create_index("job_by_digest", "job", ["owner", "digest"])
    op.create_index("job_by_idempotency_key", "job", ["owner", "idempotency_key"], unique=True)


def downgrade() -> None:
    for index in ("job_by_owner", "job_by_group", "job_by_digest", "job_by_idempotency_key"):
        op.drop_index(index, "job")
    for column in (*("owner", "group_id", "metadata", "origin", "digest", "idempotency_key", "expires_at", "starred"),):
        op.drop_column("job", column)
