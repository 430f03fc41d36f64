"""Which terminals are sent pictures, and what they are sent."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image
from rich.console import Console

from server.cli.pictures import ROWS, Screen, protocol_of
from server.settings import TerminalSettings

NAMES = ("TERM", "TERM_PROGRAM", "KITTY_WINDOW_ID", "TMUX", "STY")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("said", "protocol"),
    [
        ({}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "WezTerm"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM_PROGRAM": "iTerm.app", "TMUX": "/tmp/x"}, None),
    ],
    ids=str,
)
def test_a_terminal_is_known_by_what_it_sets(
    terminal: pytest.MonkeyPatch, said: dict[str, str], protocol: str | None
) -> None:
    for name, value in said.items():
        terminal.setenv(name, value)
    assert protocol_of(TerminalSettings()) == protocol


def moving() -> bytes:
    """A WebP that is red, then noise, then blue."""
    frames = [Image.new("RGB", (900, 600), "red"), Image.effect_noise((900, 600), 90).convert("RGB")]
    into = io.BytesIO()
    frames[0].save(into, "WEBP", save_all=True, append_images=[*frames[1:], Image.new("RGB", (900, 600), "blue")])
    return into.getvalue()


def drawn(terminal: pytest.MonkeyPatch, name: str, value: str, *, is_terminal: bool = True) -> str:
    terminal.setenv(name, value)
    into = io.StringIO()
    Screen(Console(file=into, force_terminal=is_terminal, width=80)).show(moving())
    return into.getvalue()


def test_kitty_gets_its_png_in_pieces(terminal: pytest.MonkeyPatch) -> None:
    said = drawn(terminal, "TERM", "xterm-kitty")
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", said)
    assert all(len(data) <= 4096 for _, data in pieces)
    assert [options[-3:] for options, _ in pieces] == [*["m=1"] * (len(pieces) - 1), "m=0"]
    with Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces)))) as picture:
        assert (picture.format, picture.size) == ("PNG", (480, 320))
        # The middle one, which is noise.
        assert len(picture.getcolors(480 * 320) or []) > 50
    assert said.count("\n") >= ROWS


def test_iterm_gets_it_in_one(terminal: pytest.MonkeyPatch) -> None:
    said = drawn(terminal, "TERM_PROGRAM", "iTerm.app")
    found = re.search(r"\x1b\]1337;File=inline=1;size=(\d+);[^:]*:([^\x07]*)\x07", said)
    assert found
    assert len(base64.b64decode(found[2])) == int(found[1])


def test_what_is_no_terminal_gets_nothing(terminal: pytest.MonkeyPatch) -> None:
    assert drawn(terminal, "TERM", "xterm-kitty", is_terminal=False) == ""
