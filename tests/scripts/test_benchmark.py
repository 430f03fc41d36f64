"""The benchmark runs end to end on any machine, if what it measures is small."""

import json
from pathlib import Path

import pytest

from scripts import benchmark, plot_results


def test_a_model_and_its_baseline_are_measured_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["wan2.1-t2v-1.3b", "--tiny", "--device", "cpu", "--runs", "1", "--baseline", "--into", str(tmp_path)]
    assert benchmark.main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "benchmark.jsonl").read_text().splitlines()]
    ours, plain = (row["measured"] for row in rows)
    assert [row["task"]["plain"] for row in rows] == [False, True]
    assert ours["frames"] == plain["frames"] == 17
    assert ours["repeats"]
    assert ours["flops_per_step"] > 0
    assert set(ours["stage_s"]) == {"encode", "denoise", "decode"}
    assert plot_results.main([str(tmp_path / "benchmark.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "plain diffusers" in printed
    assert "torch" in json.dumps(rows[0]["machine"])
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        f"benchmark-{name}.svg" for name in ("stages", "memory", "length", "predicted")
    }


def test_what_does_not_fit_stays_in_the_table() -> None:
    task = benchmark.Task("wan2.1-t2v-14b", benchmark.MemoryPlan("cuda:0"))
    failed = benchmark.row(task, benchmark.Measured(error="out of memory: 24 GiB"), {})
    assert "**out of memory: 24 GiB**" in plot_results.table([failed])
