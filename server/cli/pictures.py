"""Pictures in the terminal, where it can show them: by kitty's protocol or by iTerm's. Elsewhere there are none."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image
from rich.segment import ControlType, Segment

from server.settings import TerminalSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderResult

Protocol = Literal["kitty", "iterm"]
ROWS, SIDE = 10, 480
_CHUNK = 4096
_KITTY_PROGRAMS = frozenset({"ghostty", "WezTerm"})
_ITERM_PROGRAMS = frozenset({"iTerm.app", "mintty", "vscode"})


def protocol_of(terminal: TerminalSettings) -> Protocol | None:
    """Return how a terminal is given pictures; None if it is not known to show any."""
    if terminal.multiplexer:
        return None
    if terminal.kitty or terminal.term in {"xterm-kitty", "xterm-ghostty"} or terminal.program in _KITTY_PROGRAMS:
        return "kitty"
    return "iterm" if terminal.program in _ITERM_PROGRAMS else None


class Screen:
    """A console that may be able to show pictures."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._protocol: Protocol | None = protocol_of(TerminalSettings()) if console.is_terminal else None

    @property
    def shows_pictures(self) -> bool:
        """Whether there is any point in fetching one."""
        return self._protocol is not None

    def show(self, picture: bytes) -> None:
        """Draw a picture file, the middle one of those that move, above whatever progress is shown."""
        with Image.open(io.BytesIO(picture)) as image:
            image.seek(getattr(image, "n_frames", 1) // 2)
            self.show_image(image.convert("RGB"))

    def show_image(self, picture: Image.Image) -> None:
        """Draw a picture, made smaller if it is large."""
        if self._protocol is not None:
            small, into = picture.copy(), io.BytesIO()
            small.thumbnail((SIDE, SIDE))
            small.save(into, "PNG")
            self._console.print(_Inline(into.getvalue(), self._protocol))


@dataclass(frozen=True)
class _Inline:
    """A PNG among the lines of a terminal, ``ROWS`` of them high."""

    png: bytes
    protocol: Protocol

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the picture as control codes, which take no room, and the lines that it stands on."""
        del console, options
        codes = "".join(_kitty(self.png)) if self.protocol == "kitty" else _iterm(self.png)
        yield Segment(codes, None, [(ControlType.CARRIAGE_RETURN,)])
        # Kitty is told to leave the cursor where it is; iTerm moves it to the picture's last line.
        yield Segment("\n" * (ROWS if self.protocol == "kitty" else 1))


def _kitty(png: bytes) -> Iterator[str]:
    data = base64.standard_b64encode(png).decode()
    pieces = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
    for number, piece in enumerate(pieces):
        first = f"a=T,f=100,q=2,C=1,r={ROWS}," if number == 0 else ""
        yield f"\x1b_G{first}m={int(number < len(pieces) - 1)};{piece}\x1b\\"


def _iterm(png: bytes) -> str:
    data = base64.standard_b64encode(png).decode()
    return f"\x1b]1337;File=inline=1;size={len(png)};height={ROWS};preserveAspectRatio=1:{data}\x07"
