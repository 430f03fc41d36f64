"""What happened, in order, and where it has to be delivered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Moment = sa.Double[float]().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "event",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("event_by_owner", "event", ["owner", "seq"])
    op.create_index("event_by_subject", "event", ["subject", "seq"])
    op.create_index("event_by_age", "event", ["created_at"])
    op.create_table(
        "webhook_endpoint",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("event_types", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("old_secret", sa.Text),
        sa.Column("old_secret_until", Moment),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("updated_at", Moment, nullable=False),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("webhook_endpoint_by_owner", "webhook_endpoint", ["owner", "seq"])
    op.create_table(
        "delivery",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("event", sa.Integer, sa.ForeignKey("event.seq", ondelete="CASCADE"), nullable=False),
        sa.Column("endpoint", sa.Text, sa.ForeignKey("webhook_endpoint.id", ondelete="CASCADE"), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", Moment),
        sa.Column("delivered_at", Moment),
        sa.Column("last_status", sa.Integer),
        sa.Column("last_error", sa.Text),
        sqlite_strict=True,
    )
    op.create_index("delivery_by_endpoint", "delivery", ["endpoint", "next_at"])
    op.create_index("delivery_by_event", "delivery", ["event", "endpoint"], unique=True)


def downgrade() -> None:
    op.drop_table("delivery")
    op.drop_table("webhook_endpoint")
    op.drop_table("event")
