"""Taking pictures of the studio, and again after a time that was broken off."""

import subprocess
import sys
import time
from pathlib import Path

import httpx2

from scripts.screenshots import MODEL, ROOT, put_away, serving


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.TransportError:
        return False


def test_whoever_is_killed_leaves_no_server_behind(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from scripts.screenshots import serving\n"
    script += "with serving(Path(sys.argv[1])) as url: print(url, flush=True); time.sleep(600)"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert answers(url)
        process.kill()
    deadline = time.monotonic() + 60
    while answers(url):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_a_broken_run_left_in_the_queue_is_put_away(tmp_path: Path) -> None:
    slow = {"model": MODEL, "num_inference_steps": 100, "seconds": "20", "prompt": "a red ball"}
    with serving(tmp_path) as url, httpx2.Client(base_url=f"{url}/v1", timeout=60) as api:
        left = [api.post("/videos", json=slow).json()["id"] for _ in range(2)]
        put_away(api)
        queue = api.get("/queue").json()
        assert (queue["running"], queue["waiting"]) == ([], [])
        assert [api.get(f"/videos/{video}").json()["error"]["code"] for video in left] == ["cancelled"] * 2
