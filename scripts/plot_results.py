"""Tables and plots of what ``scripts/benchmark.py`` measured: python -m scripts.plot_results RESULTS.jsonl [--into DIR]

Plots are SVG, drawn here: bars of stages, seconds beside memory, memory that was predicted beside what was measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

GIB = 2**30
COLUMNS = (
    "model", "clip", "steps", "plan", "who", "load s", "cold s", "warm s (spread)", "s/step", "s per s", "MFU",
    "peak GiB alloc / reserved / device", "predicted GiB", "same seed",
)  # fmt: skip
COLOURS = {"encode": "#8da0cb", "denoise": "#66c2a5", "decode": "#fc8d62", "mux": "#e5c494", "load": "#b3b3b3"}


def label(row: dict[str, Any]) -> str:
    """Return a plan in a few words."""
    plan, task = row["task"]["plan"], row["task"]
    words = [plan["dtype"]]
    words += [plan[name] for name in ("quantisation", "offload") if plan[name] != "none"]
    words += ["tiled"] * plan["tiled"] + ["compiled"] * plan["compiled"]
    words += [f"step cache {plan['step_cache']:g}"] if plan.get("step_cache") else []
    words += [plan["attention"]] if plan["attention"] != "native" else []
    words += [f"cap {task['cap_gib']:g}"] if task["cap_gib"] else []
    return " ".join(words) + (" tiny" if task["tiny"] else "")


def table(rows: Sequence[dict[str, Any]], *, heading: bool = True) -> str:
    """Return Markdown; rows that failed stay in it and say why."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)] if heading else []
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    task, measured = row["task"], row["measured"]
    clip = f"{measured['size']} {measured['frames']}f@{measured['fps']}" if measured["size"] else "?"
    who = "plain diffusers" if task["plain"] else "homereel"
    first = [task["card"], clip, str(measured["steps"]), label(row), who]
    if measured["error"]:
        return [*first, f"**{measured['error']}**", *[""] * (len(COLUMNS) - len(first) - 1)]
    low, high = row["warm_spread_s"] or (0.0, 0.0)
    memory = " / ".join(f"{measured[f'peak_{kind}'] / GIB:.2f}" for kind in ("allocated", "reserved", "device"))
    predicted = max(row["predicted_peak"].values(), default=0)
    return [
        *first,
        f"{measured['load_s']:.1f}",
        f"{measured['cold_s']:.2f}",
        f"{row['warm_median_s']:.2f} ({low:.2f} to {high:.2f})" if row["warm_median_s"] else "",
        f"{row['s_per_step']:.3f}" if row["s_per_step"] else "",
        f"{row['s_per_output_s']:.1f}" if row["s_per_output_s"] else "",
        f"{row['mfu']:.0%}" if row["mfu"] else "",
        memory if measured["peak_allocated"] else f"RSS {measured['peak_rss'] / GIB:.2f}",
        f"{predicted / GIB:.2f}" if predicted else "",
        "yes" if measured["repeats"] else "**no**",
    ]


def stages(rows: Iterable[dict[str, Any]]) -> str:
    """Return a bar for each configuration, made of its stages' median seconds."""
    shown = [row for row in rows if not row["measured"]["error"] and row["measured"]["stage_s"]]
    longest = max((sum(map(statistics.median, row["measured"]["stage_s"].values())) for row in shown), default=1.0)
    parts: list[str] = []
    for index, row in enumerate(shown):
        y, x = 30 + 34 * index, 330.0
        parts.append(_text(x - 8, y + 15, f"{row['task']['card']} {_who(row)} {label(row)}", anchor="end"))
        for stage, seconds in row["measured"]["stage_s"].items():
            took = statistics.median(seconds)
            width = 480 * took / longest
            title = f"<title>{escape(stage)} {took:.2f} s</title>"
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="22" fill="{COLOURS[stage]}">{title}</rect>'
            )
            x += width
        parts.append(_text(x + 6, y + 15, f"{sum(map(statistics.median, row['measured']['stage_s'].values())):.2f} s"))
    for index, (stage, colour) in enumerate(COLOURS.items()):
        parts.append(f'<rect x="{330 + 90 * index}" y="8" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(346 + 90 * index, 18, stage))
    return _svg(900, 50 + 34 * len(shown), parts)


def scatter(x_name: str, y_name: str, points: Sequence[tuple[float, float, str]]) -> str:
    """Return a plot of points ``(x, y, label)``."""
    most_x = max((x for x, _, _ in points), default=1.0) * 1.15 or 1.0
    most_y = max((y for _, y, _ in points), default=1.0) * 1.15 or 1.0
    parts = ['<path d="M70 20V370H850" fill="none" stroke="#888"/>', _text(460, 402, x_name, anchor="middle")]
    parts.append(_text(20, 14, y_name))
    for tick in range(1, 5):
        x, y = 70 + 780 * tick / 4, 370 - 350 * tick / 4
        parts += [_text(x, 386, f"{most_x * tick / 4:.3g}", anchor="middle")]
        parts += [_text(64, y + 4, f"{most_y * tick / 4:.3g}", anchor="end")]
        parts.append(f'<path d="M70 {y:.0f}H850" stroke="#ddd"/>')
    for x, y, name in points:
        px, py = 70 + 780 * x / most_x, 370 - 350 * y / most_y
        parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="#66c2a5"><title>{escape(name)}</title></circle>')
        parts.append(_text(px + 8, py + 4, name))
    return _svg(900, 415, parts)


def _who(row: dict[str, Any]) -> str:
    return "plain" if row["task"]["plain"] else ""


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(width: int, height: int, parts: Iterable[str]) -> str:
    style = "<style>text{font:11px sans-serif;fill:#444}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{style}{"".join(parts)}</svg>\n'
    )


def plots(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return SVG texts by name."""
    good = [row for row in rows if not row["measured"]["error"] and row["warm_median_s"]]
    beside = [
        (
            row["measured"]["peak_allocated"] / GIB,
            row["warm_median_s"],
            f"{row['task']['card']} {_who(row)} {label(row)}",
        )
        for row in good
        if row["measured"]["peak_allocated"]
    ]
    predicted = [
        (measured / GIB, row["predicted_peak"][stage] / GIB, f"{row['task']['card']} {stage}")
        for row in good
        for stage, measured in row["measured"]["stage_peak"].items()
        if stage in row["predicted_peak"]
    ]
    lengths = [
        (row["measured"]["frames"] / row["measured"]["fps"], row["warm_median_s"], f"{row['task']['card']} {_who(row)}")
        for row in good
    ]
    return {
        "stages": stages(rows),
        "memory": scatter("peak memory, GiB", "warm clip, s", beside),
        "length": scatter("clip length, s", "warm clip, s", lengths),
        "predicted": scatter("measured peak, GiB", "predicted peak, GiB", predicted),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="JSONL of the benchmark")
    parser.add_argument("--into", type=Path, help="folder for the plots; beside the results if not given")
    options = parser.parse_args(arguments)
    rows = [json.loads(line) for line in options.results.read_text().splitlines()]
    print(table(rows))
    folder = options.into or options.results.parent
    for name, svg in plots(rows).items():
        (folder / f"{options.results.stem}-{name}.svg").write_text(svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
