"""README's tables say what the code says."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_tables_are_up_to_date() -> None:
    command = [sys.executable, "-m", "scripts.readme_tables", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_test_that_a_table_names_exists() -> None:
    table = (ROOT / "tests" / "README.md").read_text()
    named = re.findall(r"`([a-z_/]+\.py)::(\w+)`", table)
    assert len(named) > 60
    for path, test in named:
        assert f"def {test}(" in (ROOT / "tests" / path).read_text(), (path, test)
