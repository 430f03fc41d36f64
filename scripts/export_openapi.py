"""Write the reviewed promise of the API, tests/contract/openapi.json. Run it, read the diff, commit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server.app import create_app
from server.settings import Settings

SNAPSHOT = Path(__file__).parents[1] / "tests" / "contract" / "openapi.json"


def document() -> dict[str, Any]:
    """Return the API's description without the release's number, which is no part of the promise."""
    described = create_app(Settings(), supervise=False).openapi()
    del described["info"]["version"]
    return described


def main() -> None:
    SNAPSHOT.parent.mkdir(parents=True, exist_ok=True)
    SNAPSHOT.write_text(json.dumps(document(), indent=2, sort_keys=True) + "\n")
    print(SNAPSHOT)


if __name__ == "__main__":
    main()
