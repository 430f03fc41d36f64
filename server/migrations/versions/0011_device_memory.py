"""The memory of each worker's device."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker", sa.Column("memory", sa.Text))


def downgrade() -> None:
    op.drop_column("worker", "memory")
