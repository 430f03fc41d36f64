"""Settings of commands that work on a server's database and folder themselves, whether it runs or not."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from server import database
from server.cli.outcome import Failure, Outcome
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    from sqlalchemy import Engine

PLACE = ("data_dir", "store_url")
# What people look for under another name.
_ALSO_CALLED = {"preload": "--model"}


def add_settings(parser: ArgumentParser, names: Collection[str]) -> None:
    """Declare one option per setting, described by the setting itself."""
    for name in names:
        field = Settings.model_fields[name]
        flags = [f"--{name.replace('_', '-')}", *filter(None, [_ALSO_CALLED.get(name)])]
        help_text = (field.description or "").replace("%", "%%")
        # A switch may stand alone: --insecure-no-auth.
        alone: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        parser.add_argument(*flags, dest=name, default=SUPPRESS, metavar="VALUE", help=help_text, **alone)


def settings_from(options: Namespace) -> Settings:
    """Return the settings: what the options say, then the environment.

    Raises:
        Failure: One of them makes no sense.
    """
    given = {name: getattr(options, name) for name in Settings.model_fields if hasattr(options, name)}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        raise Failure(f"--{name.replace('_', '-')}: {first['msg']}", Outcome.MISUSED) from error


@contextmanager
def opened(settings: Settings) -> Generator[Engine]:
    """Lend the database.

    Raises:
        Failure: It cannot be opened, or what is done with it fails.
    """
    try:
        engine = database.connect(settings.database_url)
    except (SQLAlchemyError, OSError) as error:
        raise Failure(f"cannot open the database {settings.database_url}: {_first_line(error)}") from error
    try:
        yield engine
    except SQLAlchemyError as error:
        raise Failure(f"the database {settings.database_url} fails: {_first_line(error)}") from error
    finally:
        engine.dispose()


def count(text: str) -> int:
    """Read a whole number from 1.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
