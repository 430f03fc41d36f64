"""The first command of README, less the installation, which is what runs this test."""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.media import probe

ROOT = Path(__file__).resolve().parents[2]


def test_quickstart_ends_with_the_path_of_a_video(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "scripts" / "quickstart.py"), "a red ball bouncing on a green field"],
        cwd=tmp_path,
        env={**os.environ, "HOMEREEL_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = Path(done.stdout.splitlines()[-1])
    assert made.is_absolute()
    facts = probe(made)
    made.unlink()
    assert facts.shape.frames > 1
    assert facts.provenance is not None
    assert facts.provenance["prompt"] == "a red ball bouncing on a green field"
