"""Plots as SVG, for numbers of a few dozen measurements: bars of parts, points, lines, and a trace over bands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

COLOURS = {"encode": "#8da0cb", "denoise": "#66c2a5", "decode": "#fc8d62", "mux": "#e5c494", "load": "#b3b3b3"}
# Told apart by those, too, who see no red or no green.
LINES = ("#1b6ca8", "#d95f02", "#4d4d4d", "#7570b3", "#a6761d", "#e7298a", "#117733", "#88ccee")
WIDTH = 900
# Where points and lines are drawn: left, right, top, bottom.
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 850.0, 30.0, 370.0
_NAMES_AT = 330.0


class Axes(NamedTuple):
    """What is drawn against what; both begin at 0 unless ``y_from`` says otherwise."""

    x: str
    y: str
    y_from: float = 0.0


class Point(NamedTuple):
    """A measurement and its name."""

    x: float
    y: float
    name: str


def bars(rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Return a bar of coloured parts, in seconds, for each name."""
    longest = max((sum(parts.values()) for _, parts in rows), default=0.0) or 1.0
    drawn: list[str] = []
    for index, (name, parts) in enumerate(rows):
        y, x = 30 + 34 * index, _NAMES_AT
        drawn.append(_text(x - 8, y + 15, name, anchor="end"))
        for part, seconds in parts.items():
            width = 480 * seconds / longest
            title = f"<title>{escape(part)} {seconds:.2f} s</title>"
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="22" fill="{COLOURS[part]}">{title}</rect>'
            )
            x += width
        drawn.append(_text(x + 6, y + 15, f"{sum(parts.values()):.2f} s"))
    for index, (part, colour) in enumerate(COLOURS.items()):
        drawn.append(f'<rect x="{_NAMES_AT + 90 * index}" y="8" width="12" height="12" fill="{colour}"/>')
        drawn.append(_text(_NAMES_AT + 16 + 90 * index, 18, part))
    return _svg(50 + 34 * len(rows), drawn)


def scatter(axes: Axes, points: Sequence[Point], *, through: Sequence[Point] = (), equal: bool = False) -> str:
    """Return named points.

    Args:
        axes: Their meaning.
        points: What is drawn.
        through: Those that a line goes through, from left to right.
        equal: Whether a line shows where both coordinates are the same.
    """
    scale = _Scale.of(axes, points)
    drawn = scale.grid(axes)
    if equal:
        end = min(scale.most_x, scale.most_y)
        drawn.append(_path([scale.at(0, 0), scale.at(end, end)], "#bbb", dashed=True))
    if through:
        drawn.append(_path([scale.at(p.x, p.y) for p in sorted(through)], "#999", dashed=True))
    for point in points:
        x, y = scale.at(point.x, point.y)
        title = f"<title>{escape(point.name)}</title>"
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{LINES[0]}">{title}</circle>')
        right = x > (_LEFT + _RIGHT) / 2
        drawn.append(_text(x - 8 if right else x + 8, y + 4, point.name, anchor="end" if right else "start"))
    return _svg(415, drawn)


def lines(axes: Axes, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return a line for each name, with a mark at every measurement."""
    scale = _Scale.of(axes, [Point(x, y, name) for name, found in series.items() for x, y in found])
    drawn = scale.grid(axes)
    for index, (name, found) in enumerate(series.items()):
        colour, ends = LINES[index % len(LINES)], [scale.at(x, y) for x, y in sorted(found)]
        drawn.append(_path(ends, colour))
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in ends]
        drawn.append(f'<rect x="{_LEFT + 10}" y="{420 + 18 * index}" width="12" height="3" fill="{colour}"/>')
        drawn.append(_text(_LEFT + 28, 425 + 18 * index, name))
    return _svg(425 + 18 * len(series), drawn)


def trace(axes: Axes, found: Sequence[tuple[float, float]], bands: Sequence[tuple[float, str]]) -> str:
    """Return a line over bands: each begins where it says, and ends where the next one does."""
    scale = _Scale.of(axes, [Point(x, y, "") for x, y in found])
    drawn: list[str] = []
    ends = [*(begin for begin, _ in bands[1:]), max((x for x, _ in found), default=0.0)]
    for (begin, band), end in zip(bands, ends, strict=True):
        left, _ = scale.at(begin, 0)
        right, _ = scale.at(max(begin, end), 0)
        drawn.append(
            f'<rect x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{_BOTTOM - _TOP}" '
            f'fill="{COLOURS[band]}" opacity="0.35"><title>{escape(band)} {end - begin:.2f} s</title></rect>'
        )
        if right - left > 50:
            drawn.append(_text((left + right) / 2, _TOP + 14, band, anchor="middle"))
    drawn += [*scale.grid(axes), _path([scale.at(x, y) for x, y in found], LINES[0])]
    return _svg(415, drawn)


class _Scale(NamedTuple):
    most_x: float
    most_y: float
    least_y: float

    @classmethod
    def of(cls, axes: Axes, points: Iterable[Point]) -> _Scale:
        found = list(points)
        most_x = max((p.x for p in found), default=1.0) * 1.1 or 1.0
        most_y = axes.y_from + (max((p.y for p in found), default=1.0) - axes.y_from) * 1.15
        return cls(most_x, most_y if most_y > axes.y_from else axes.y_from + 1.0, axes.y_from)

    def at(self, x: float, y: float) -> tuple[float, float]:
        height = (y - self.least_y) / (self.most_y - self.least_y)
        return _LEFT + (_RIGHT - _LEFT) * x / self.most_x, _BOTTOM - (_BOTTOM - _TOP) * height

    def grid(self, axes: Axes) -> list[str]:
        drawn = [f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="#888"/>']
        drawn += [_text((_LEFT + _RIGHT) / 2, 404, axes.x, anchor="middle"), _text(20, 16, axes.y)]
        for value in _ticks(0.0, self.most_x):
            x, _ = self.at(value, self.least_y)
            drawn.append(_text(x, 386, f"{value:g}", anchor="middle"))
        for value in _ticks(self.least_y, self.most_y):
            _, y = self.at(0.0, value)
            drawn.append(_text(64, y + 4, f"{value:g}", anchor="end"))
            drawn.append(f'<path d="M{_LEFT} {y:.0f}H{_RIGHT}" stroke="#ddd"/>')
        return drawn


def _ticks(least: float, most: float) -> list[float]:
    """Return at most six round numbers of a range."""
    rough = (most - least) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= rough)
    return [round(number * step, 10) for number in range(math.ceil(least / step), math.floor(most / step) + 1)]


def _path(ends: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> str:
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in ends)
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="1.5"{dashes}/>' if ends else ""


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(height: int, parts: Iterable[str]) -> str:
    style = "<style>text{font:11px sans-serif;fill:#444}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{style}{"".join(parts)}</svg>\n'
    )
