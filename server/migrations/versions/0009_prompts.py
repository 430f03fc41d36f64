"""Prompts of jobs in a column of their own, found by their words; own templates; starred prompts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

Moment = sa.Double[float]().with_variant(sa.REAL(), "sqlite")
_INSERTED = "INSERT INTO prompt_search (rowid, prompt) VALUES (new.seq, new.prompt)"
_SQLITE = (
    "CREATE VIRTUAL TABLE prompt_search USING fts5 "
    "(prompt, tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3')",
    "INSERT INTO prompt_search (rowid, prompt) SELECT seq, prompt FROM job",
    f"CREATE TRIGGER prompt_search_insert AFTER INSERT ON job BEGIN {_INSERTED}; END",
    "CREATE TRIGGER prompt_search_delete AFTER DELETE ON job "
    "BEGIN DELETE FROM prompt_search WHERE rowid = old.seq; END",
)


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.add_column("job", sa.Column("prompt", sa.Text, nullable=False, server_default=""))
    said = "json_extract(request, '$.prompt')" if is_sqlite else "CAST(request AS json) ->> 'prompt'"
    op.execute(f"UPDATE job SET prompt = {said}")  # noqa: S608 - nothing in it comes from outside
    if is_sqlite:
        for statement in _SQLITE:
            op.execute(statement)
    else:
        op.execute("CREATE INDEX job_by_words ON job USING gin (to_tsvector('simple', prompt))")
    op.create_table(
        "prompt_template",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("template", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("prompt_template_by_owner", "prompt_template", ["owner", "id"])
    op.create_table(
        "starred_prompt",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("negative_prompt", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("starred_prompt_by_owner", "starred_prompt", ["owner", "id"])


def downgrade() -> None:
    op.drop_table("starred_prompt")
    op.drop_table("prompt_template")
    if op.get_bind().dialect.name == "sqlite":
        for statement in ("TRIGGER prompt_search_delete", "TRIGGER prompt_search_insert", "TABLE prompt_search"):
            op.execute(f"DROP {statement}")
    else:
        op.execute("DROP INDEX job_by_words")
    op.drop_column("job", "prompt")
