"""Texts of other people, made fit for a terminal."""

from __future__ import annotations

from rich.text import Text

LENGTH = 48


def shown(text: str, length: int = LENGTH) -> Text:
    """Return the beginning of a text on one line."""
    # Somebody else's: neither its escape sequences nor its brackets may steer this terminal.
    line = "".join(character if character.isprintable() else " " for character in text)
    return Text(line if len(line) <= length else line[: length - 1] + "…")
