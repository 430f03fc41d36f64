"""Tables and plots of what ``scripts/benchmark.py`` measured: python -m scripts.plot_results RESULTS.jsonl [--into DIR]

Writes RESULTS.md and SVG plots: seconds by stage; seconds beside memory, with the line that nothing beats; seconds by
the clip's length; memory while a clip is made, and from clip to clip; memory as predicted beside memory as measured;
and for plans that lose something, how much they lose for how much time.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.drawing import Axes, Point, bars, lines, scatter, trace

GIB = 2**30
COLUMNS = (
    "model", "clip", "steps", "plan", "who", "load s", "cold s", "warm s (spread)", "time / plain", "s/step",
    "s per s", "MFU", "peak GiB alloc / reserved / device", "predicted GiB", "same seed", "beside the first",
)  # fmt: skip
# Plans that differ in nothing but these make the same clip, or nearly.
_OF_THE_CLIP = ("card", "size", "seconds", "steps", "tiny")


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


def table(rows: Sequence[dict[str, Any]], *, only: int | None = None, heading: bool = True) -> str:
    """Return Markdown; rows that failed stay in it and say why.

    Args:
        rows: Of the benchmark.
        only: The one to show; all if it is not said.
        heading: Whether the columns are named.
    """
    shown = rows if only is None else [rows[only]]
    drawn = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)] if heading else []
    drawn += ["| " + " | ".join(_cells(row, rows)) + " |" for row in shown]
    return "\n".join(drawn)


def _cells(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    task, measured = row["task"], row["measured"]
    clip = f"{measured['size']} {measured['frames']}f@{measured['fps']}" if measured["size"] else "?"
    who = "plain diffusers" if task["plain"] else "homereel"
    first = [task["card"], clip, str(measured["steps"]), label(row), who]
    if measured["error"]:
        return [*first, f"**{measured['error']}**", *[""] * (len(COLUMNS) - len(first) - 1)]
    low, high = row["warm_spread_s"] or (0.0, 0.0)
    ratio = beside_plain(row, rows)
    memory = " / ".join(f"{measured[f'peak_{kind}'] / GIB:.2f}" for kind in ("allocated", "reserved", "device"))
    return [
        *first,
        f"{measured['load_s']:.1f}",
        f"{measured['cold_s']:.2f}",
        f"{row['warm_median_s']:.2f} ({low:.2f} to {high:.2f})" if row["warm_median_s"] else "",
        f"{ratio:.2f}" if ratio else "",
        f"{row['s_per_step']:.3f}" if row["s_per_step"] else "",
        f"{row['s_per_output_s']:.1f}" if row["s_per_output_s"] else "",
        f"{row['mfu']:.0%}" if row["mfu"] else "",
        memory if measured["peak_allocated"] else f"RSS {measured['peak_rss'] / GIB:.2f}",
        _predicted(row),
        "yes" if measured["repeats"] else "**no**",
        _likeness(measured),
    ]


def _predicted(row: dict[str, Any]) -> str:
    predicted, measured = max(row["predicted_peak"].values(), default=0), row["measured"]["peak_allocated"]
    if not predicted:
        return ""
    return f"{predicted / GIB:.2f}" + (f" ({predicted / measured - 1:+.0%})" if measured else "")


def _likeness(measured: dict[str, Any]) -> str:
    if measured["contrast"] < 1:
        return "**one colour**"
    difference = measured["difference"]
    if difference is None:
        return ""
    return f"{psnr(difference):.1f} dB" if difference else "equal"


def psnr(difference: float) -> float:
    """Return decibels for a mean square difference of 8-bit levels."""
    return 10 * math.log10(255**2 / difference)


def beside_plain(row: dict[str, Any], rows: Iterable[dict[str, Any]]) -> float | None:
    """Return how many times as long a clip takes as plain diffusers' with the same plan, the latest measured."""
    if row["task"]["plain"]:
        return None
    plain = [other for other in rows if other["task"]["plain"] and _same(other, row) and label(other) == label(row)]
    theirs = plain[-1]["warm_median_s"] if plain else None
    return row["warm_median_s"] / theirs if theirs and row["warm_median_s"] else None


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one["task"][name] == other["task"][name] for name in _OF_THE_CLIP)


def _name(row: dict[str, Any], *, with_clip: bool = True) -> str:
    task, measured = row["task"], row["measured"]
    clip = [f"{measured['size']} {measured['frames'] / measured['fps']:.2g} s"] if with_clip else []
    return " ".join([task["card"], *clip, *["plain"] * task["plain"], label(row)])


def _pareto(points: Sequence[Point]) -> list[Point]:
    """Return those that no other beats in both: less memory, less time."""
    return [p for p in points if not any(o.x <= p.x and o.y <= p.y and (o.x, o.y) != (p.x, p.y) for o in points)]


def _memory(measured: dict[str, Any]) -> float:
    return (measured["peak_allocated"] or measured["peak_rss"]) / GIB


def _lengths(rows: Iterable[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        measured = row["measured"]
        point = (measured["frames"] / measured["fps"], row["warm_median_s"])
        found.setdefault(f"{_name(row, with_clip=False)} {measured['size']}", []).append(point)
    return found


def _losses(rows: Sequence[dict[str, Any]]) -> list[Point]:
    """Return how near each lossy plan comes to the plan it was compared with, by how much faster it is."""
    found: list[Point] = []
    for row in rows:
        first = next(other for other in rows if _same(other, row))
        if row["measured"]["difference"] and not row["task"]["plain"]:
            gain = first["warm_median_s"] / row["warm_median_s"]
            found.append(Point(gain, psnr(row["measured"]["difference"]), _name(row)))
    return found


def plots(rows: Sequence[dict[str, Any]]) -> Mapping[str, str]:
    """Return SVG texts by name; those that there is nothing to draw for are left out."""
    good = [row for row in rows if not row["measured"]["error"] and row["warm_median_s"]]
    if not good:
        return {}
    where = "peak memory, GiB"
    beside = [Point(_memory(row["measured"]), row["warm_median_s"], _name(row)) for row in good]
    predicted = [
        Point(measured / GIB, row["predicted_peak"][stage] / GIB, f"{row['task']['card']} {stage}")
        for row in good
        for stage, measured in row["measured"]["stage_peak"].items()
        if stage in row["predicted_peak"]
    ]
    soaks = {
        _name(row): [(number, taken / GIB) for number, taken in enumerate(row["measured"]["run_memory"], 1)]
        for row in good
    }
    shown = max(
        (row for row in good if not row["task"]["plain"]), key=lambda row: row["warm_median_s"], default=good[0]
    )
    seconds = [(_name(r), {s: statistics.median(took) for s, took in r["measured"]["stage_s"].items()}) for r in good]
    taken = [(when, size / GIB) for when, size in shown["measured"]["trace"]]
    drawn = {
        "stages": bars(seconds),
        "memory": scatter(Axes(where, "warm clip, s"), beside, through=_pareto(beside)),
        "length": lines(Axes("clip length, s", "warm clip, s"), _lengths(good)),
        "clips": lines(Axes("clip", "memory held, GiB"), soaks),
        "trace": trace(
            Axes(f"cold clip of {_name(shown)}, s", "memory, GiB"), taken, shown["measured"]["trace_stages"]
        ),
    }
    if predicted:
        drawn["predicted"] = scatter(Axes("measured peak, GiB", "predicted peak, GiB"), predicted, equal=True)
    if losses := _losses(good):
        drawn["losses"] = scatter(Axes("times as fast as the first plan", "likeness to its frames, dB"), losses)
    return drawn


def report(results: Path, into: Path) -> None:
    """Write table and plots of all rows of a file of results."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    machines = dict.fromkeys(", ".join(f"{k} {v}" for k, v in row["machine"].items()) for row in rows)
    heading = "\n".join(f"Measured by `scripts/benchmark.py` with {machine}.\n" for machine in machines)
    where = f"What was asked for, whole, is in `{results.name}`."
    (into / f"{results.stem}.md").write_text(f"{heading}\n{table(rows)}\n\n{where}\n")
    for name, svg in plots(rows).items():
        (into / f"{results.stem}-{name}.svg").write_text(svg)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSONL of the benchmark")
    parser.add_argument("--into", type=Path, help="folder for table and plots; beside the results if not given")
    options = parser.parse_args(arguments)
    folder = options.into or options.results.parent
    report(options.results, folder)
    print((folder / f"{options.results.stem}.md").read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
