"""Texts of other people, and tables of them, made fit for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.table import Table

LENGTH = 48


def shown(text: str, length: int = LENGTH) -> Text:
    """Return the beginning of a text on one line."""
    # Somebody else's: neither its escape sequences nor its brackets may steer this terminal.
    line = "".join(character if character.isprintable() else " " for character in text)
    return Text(line if len(line) <= length else line[: length - 1] + "…")


def print_wide(table: Table) -> None:
    """Print a table as wide as it is: a narrow terminal breaks its lines, but columns of one letter say nothing."""
    console = Console(soft_wrap=True)
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    Console(soft_wrap=True, width=max(console.width, needed)).print(table)
