"""The benchmark runs end to end on any machine, if what it measures is small."""

import io
import json
from pathlib import Path

import pytest

from scripts import benchmark, plot_results

CARD = "wan2.1-t2v-1.3b"
TINY = [CARD, "--tiny", "--device", "cpu", "--runs", "1", "--baseline"]


def test_a_model_and_its_baseline_are_measured_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([*TINY, "--quantisation", "none", "fp8", "--into", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "benchmark.jsonl").read_text().splitlines()]
    ours, plain, rounded = (row["measured"] for row in rows)
    assert [row["task"]["plain"] for row in rows] == [False, True, False]
    assert ours["frames"] == plain["frames"] == 17
    assert ours["repeats"]
    assert ours["flops_per_step"] > 0
    assert set(ours["stage_s"]) == {"encode", "denoise", "decode"}
    assert ours["request"]["seed"] == 42
    assert len(ours["run_memory"]) == 2
    assert [stage for _, stage in ours["trace_stages"]] == ["encode", "denoise", "decode"]
    # The same weights in another process, and the same frames.
    assert (ours["difference"], plain["difference"]) == (None, 0.0)
    assert rounded["difference"] > 0
    assert "plain diffusers" in capsys.readouterr().out
    assert "torch" in json.dumps(rows[0]["machine"])
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    assert drawn == {f"benchmark-{name}.svg" for name in ("stages", "memory", "length", "clips", "trace", "losses")}


def test_the_table_has_the_rows_of_every_command_and_their_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = " ".join([*TINY, "--into", str(tmp_path)])
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{lines}\n{lines} --offload model\n"))
    assert benchmark.main(["-"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "benchmark.jsonl").read_text().splitlines()]
    told = [line for line in (tmp_path / "benchmark.md").read_text().splitlines() if line.startswith(f"| {CARD}")]
    assert len(told) == len(rows) == 4
    for ours, plain, line in ((rows[0], rows[1], told[0]), (rows[2], rows[3], told[2])):
        ratio = ours["warm_median_s"] / plain["warm_median_s"]
        assert plot_results.beside_plain(ours, rows) == pytest.approx(ratio)
        assert f"| {ratio:.2f} |" in line


def test_what_does_not_fit_stays_in_the_table() -> None:
    task = benchmark.Task("wan2.1-t2v-14b", benchmark.MemoryPlan("cuda:0"))
    failed = benchmark.row(task, benchmark.Measured(error="out of memory: 24 GiB"), {})
    assert "**out of memory: 24 GiB**" in plot_results.table([failed])
