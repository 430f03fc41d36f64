"""How a search becomes SQL, in either database's words."""

from __future__ import annotations

import pytest
from sqlalchemy.dialects import postgresql

from server.selection import MAX_WORDS, Filter, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("  *-' ", ()),
        ("Red ball, red", ("red", "ball")),
        ("night_fall it's", ("night", "fall", "it", "s")),
        ("Über 4K 猫", ("über", "4k", "猫")),
        ('"a" & !b | c:*', ("a", "b", "c")),
    ],
)
def test_words_are_letters_and_digits(text: str, words: tuple[str, ...]) -> None:
    assert words_of(text) == words


def test_there_is_an_end_to_how_many_count() -> None:
    assert len(words_of(" ".join(map(str, range(100))))) == MAX_WORDS


def test_postgresql_is_asked_so_that_its_index_answers() -> None:
    """The expression has to be that of the migration, or every row is read."""
    (condition,) = Filter(words=("red", "ball")).conditions("postgresql")
    said = str(condition.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
    assert said == "to_tsvector('simple', job.prompt) @@ to_tsquery('simple', '''red'':* & ''ball'':*')"
