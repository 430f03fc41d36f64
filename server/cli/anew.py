"""What ``remix``, ``edit`` and ``extend`` share: a source, a prompt, and the settings that travel as they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from server.cli.client import Client
from server.cli.local import connected_or_own
from server.cli.orders import Wanted, add_output, check_output, make
from server.cli.outcome import Failure, Outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from pydantic import JsonValue


@dataclass(frozen=True)
class Setting:
    """An option that is sent under its own name on the wire."""

    flag: str
    name: str
    kind: type
    summary: str


COMMON = (
    Setting("--seed", "seed", int, "same request, same seed, same frames"),
    Setting("--negative", "negative_prompt", str, "what to steer away from"),
    Setting("--model", "model", str, "which model makes it; by default the source's"),
    Setting("--steps", "num_inference_steps", int, "denoising steps"),
    Setting("--guidance", "guidance_scale", float, "how closely to follow the prompt"),
)
STRENGTH = Setting("--strength", "strength", float, "how far to go from the source, above 0 (keep) to 1 (forget)")


def declare(parser: ArgumentParser, settings: Sequence[Setting], *, takes_file: bool) -> None:
    """Declare source, prompt and settings."""
    source = "the video's id (see: homereel history)" + (", or an MP4" if takes_file else "")
    parser.add_argument("video", metavar="VIDEO", help=source)
    parser.add_argument("prompt", metavar="PROMPT", help="what to show")
    for setting in settings:
        parser.add_argument(setting.flag, dest=setting.name, type=setting.kind, help=setting.summary)
    add_output(parser)


def carry_out(options: Namespace, settings: Sequence[Setting], path: str, *, in_path: bool = False) -> int:
    """Ask for the video at ``path``, where ``{id}`` stands for the source if it belongs there, and fetch it."""
    check_output(options.output)
    fields: dict[str, JsonValue] = {"prompt": options.prompt}
    given = {setting.name: getattr(options, setting.name) for setting in settings}
    fields |= {name: value for name, value in given.items() if value is not None}
    file = None
    if in_path:
        path = path.format(id=quote(options.video, safe=""))
    elif is_file(options.video):
        file = Path(options.video)
    else:
        fields["video"] = {"id": options.video}
    wanted = Wanted(partial(Client.make, path=path, fields=fields, video=file), options.output)
    with connected_or_own() as client:
        return make(client, [wanted], as_json=options.json)


def is_file(source: str) -> bool:
    """Tell whether a source is a file rather than an id; one that looks like a file has to be there.

    Raises:
        Failure: It is not.
    """
    if Path(source).is_file():
        return True
    if source.lower().endswith(".mp4") or "/" in source:
        raise Failure(f"there is no file {source}", Outcome.MISUSED)
    return False
