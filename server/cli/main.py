"""``homereel``: parse, call, print. Each verb is a module, imported only when it is the one that was asked for."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from server.cli.outcome import Failure, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = {
    "serve": "run the server",
    "generate": "make a video from a prompt, with or without a running server",
    "remix": "make a video anew, as another prompt says",
    "edit": "make a video or an MP4 anew, as a prompt says",
    "extend": "let a video or an MP4 go on",
    "join": "put videos, or parts of them, into one file",
    "compare": "draw a contact sheet of videos, with what they differ in",
    "restore": "say with which parameters an MP4 was made",
    "batch": "make the videos of a file of requests",
    "history": "show what has been asked for",
    "prompts": "search prompts, fill templates, keep stars, compare runs",
    "list": "show the models: licence, sizes, whether they are installed",
    "plan": "say whether a model fits a GPU, and how it would run",
    "pull": "fetch a model's weights into the shared cache of Hugging Face",
    "rm": "remove a model's weights",
    "add": "make a checkpoint in a folder of this machine a model",
    "ps": "show workers, running and waiting videos",
    "doctor": "check this machine, and say how to mend what is wrong",
    "cancel": "stop videos that wait or run",
    "pause": "have nothing made for a while, and free the device",
    "resume": "go on after a pause, where the videos were left",
    "prune": "remove the files of old videos; the records stay",
    "backup": "copy database and files into a folder, while the server runs",
    "keys": "make, list and revoke the API keys of clients",
    "completion": "print what makes a shell complete all of this",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 asked wrongly, 130 interrupted."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        print("homereel", version("homereel"))
        return Outcome.DONE
    parser, verb = _parser(words)
    options = parser.parse_args(words)
    if verb is None:
        parser.print_help()
        return Outcome.DONE
    try:
        return import_module(f"server.cli.{verb}").run(options)
    except Failure as failure:
        print(f"homereel: {failure}", file=sys.stderr)
        return failure.outcome
    except KeyboardInterrupt:
        print("homereel: interrupted", file=sys.stderr)
        return Outcome.INTERRUPTED


def _parser(words: Sequence[str]) -> tuple[ArgumentParser, str | None]:
    """Return the parser and the verb that was asked for; only that verb's options are known to it."""
    parser = ArgumentParser(
        prog="homereel",
        description="A self-hosted stand-in for OpenAI's /v1/videos.",
        epilog="Try: homereel generate 'a red ball bouncing on a green field' -o ball.mp4",
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    verbs = parser.add_subparsers(metavar="COMMAND", title="commands")
    chosen = words[0] if words and words[0] in VERBS else None
    for name, summary in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            import_module(f"server.cli.{name}").configure(verb)
    return parser, chosen
