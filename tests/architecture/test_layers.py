"""The shape of the code, where a machine can check it. Import contracts proper: `lint-imports`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import server

ROOT = Path(__file__).resolve().parents[2]
TENSOR_LIBRARIES = {"torch", "diffusers", "transformers", "accelerate", "safetensors", "tokenizers"}
SOURCES = sorted(
    path for folder in ("server", "pipelines", "configs", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")
)


def modules_after(statement: str) -> set[str]:
    """Run a statement in a fresh process and return the top-level modules that it loaded."""
    program = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "server.app",
        "server.cli.main",
        "server.cli.serve",
        "server.cli.generate",
        "server.cli.list",
        "server.cli.ps",
        "server.cli.cancel",
        "server.worker",
        "server.supervisor",
        "pipelines",
        "pipelines.registry",
        "pipelines.engine",
        "pipelines.media",
    ],
)
def test_no_tensor_library_comes_with(module: str) -> None:
    assert not modules_after(f"import {module}") & TENSOR_LIBRARIES


def test_help_loads_nothing_that_takes_time() -> None:
    program = (
        "import contextlib\nfrom server.cli.main import main\nwith contextlib.suppress(SystemExit): main(['--help'])"
    )
    slow = {"fastapi", "pydantic", "sqlalchemy", "httpx2", "rich", "numpy", "yaml", "asyncio"}
    assert not modules_after(program) & (slow | TENSOR_LIBRARIES)


def test_the_packages_are_those_of_this_checkout() -> None:
    # "server" is a common name: another distribution's could be imported without a word.
    assert [Path(entry) for entry in server.__path__] == [ROOT / "server"]


def test_no_file_is_too_long_to_hold_in_the_head() -> None:
    long = {str(path.relative_to(ROOT)): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_no_family_is_named_outside_its_file_and_cards() -> None:
    families = [path.stem for path in (ROOT / "pipelines" / "families").glob("*.py") if path.stem != "__init__"]
    assert families
    # As a word: what is wanted is no model.
    named = re.compile(rf"(?<![a-z])({'|'.join(map(re.escape, families))})(?![a-z])", re.IGNORECASE)
    shared = [*(ROOT / "server").rglob("*.py"), *(ROOT / "pipelines").glob("*.py")]
    assert not [str(path.relative_to(ROOT)) for path in shared if named.search(path.read_text())]
