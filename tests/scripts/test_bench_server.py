from scripts.bench_server import report, spread

MEASURED = {
    "health_s": 1.234,
    "rss_idle_mb": 95.4,
    "rss_after_mb": 101.6,
    "first_clip_s": 9.0,
    "clip_s": [4.0, 6.0, 5.0],
    "stage_s": {"denoise": [3.0, 4.0, 3.5]},
    "plain_s": [4.0, 4.0, 4.0],
    "status_ms": [float(i) for i in range(1, 201)],
}


def test_a_spread_is_the_median_between_the_extremes() -> None:
    assert spread([3.0, 1.0, 2.0], " s") == "2.00 s (1.00 to 3.00, n=3)"


def test_the_report_is_a_table_under_the_machine() -> None:
    lines = report({"machine": "two cores"}, MEASURED).splitlines()
    assert lines[:4] == ["- machine: two cores", "", "| what | measured |", "|---|---|"]
    assert {line.count("|") for line in lines[2:]} == {3}
    assert "| start to the first `/health` | 1.23 s |" in lines
    assert "| … of it denoise | 3.50 s (3.00 to 4.00, n=3) |" in lines
    assert "| server / plain script | 1.25 (1.00 to 1.50, n=3) |" in lines
    assert "| status GET while a clip is made | p50 101.0 ms, p99 199.0 ms, max 200.0 ms (n=200) |" in lines
