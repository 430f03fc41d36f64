"""The log: one event a line, as text or as JSON. Prompts appear at DEBUG only."""

from __future__ import annotations

import json
import logging
import sys
import time

from server.settings import Settings


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
        return json.dumps(entry, ensure_ascii=False)


def configure_logging(settings: Settings) -> None:
    """Send everything that is logged in this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonLines())
    else:
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # It warns of every malformed upload, which is the client's fault and has its answer.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    # It says twice per process that nothing had to be done.
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
