"""The log: one event a line, as text or as JSON. Prompts appear at DEBUG only."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from types import TracebackType
from typing import TypeAlias

from typing_extensions import override

from server.settings import Settings

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
# What could end a line, or speak to the terminal of whoever reads it: C0, DEL, C1, and Unicode's own line ends.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_LINE_ENDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class TextLines(logging.Formatter):
    """Every record as one line of text; a traceback follows in lines that are set in, so that none can be forged."""

    converter = time.gmtime

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the record's own line."""
        return _CONTROL.sub(_escaped, super().formatMessage(record))

    @override
    def formatException(self, ei: _ExcInfo) -> str:
        """Return the traceback."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  | {_CONTROL_BUT_LINE_ENDS.sub(_escaped, line)}" for line in lines)


class JsonLines(logging.Formatter):
    """Every record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        entry = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        # JSON itself escapes C0 alone.
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(entry, ensure_ascii=False))


def configure_logging(settings: Settings) -> None:
    """Send everything that is logged in this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else TextLines())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # It warns of every malformed upload, which is the client's fault and has its answer.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    # So does this one, of every line that is no HTTP.
    logging.getLogger("uvicorn.error").setLevel(max(logging.getLogger().level, logging.ERROR))
    # It says twice per process that nothing had to be done.
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
