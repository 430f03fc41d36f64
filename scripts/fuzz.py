"""Ask the API everything that its description allows, and much that it does not. Exits 1 if an answer is wrong.

schemathesis runs all its phases against a server on a socket; then come thousands of forms with something broken in
each. The suite runs a little of both (tests/contract); this runs as much as it is told to.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.acceptance.serving import serving
from tests.contract import mutated

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "tests" / "contract" / "schemathesis.toml"


def explore(
    base_url: str, folder: Path, *, examples: int, scenarios: int, seed: int, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Let schemathesis run all its phases.

    Args:
        base_url: Address of the running server, ending in ``/v1``.
        folder: A place for what it writes on the way.
        examples: Most test cases of an operation while fuzzing.
        scenarios: Chains of calls that follow links.
        seed: The same seed sends the same requests.
        timeout_s: It is stopped then.

    Raises:
        subprocess.TimeoutExpired: It was stopped.
    """
    written = CONFIGURATION.read_text().replace('hooks = "tests', f'hooks = "{ROOT}/tests')
    written += f"\n[phases.fuzzing.generation]\nmax-examples = {examples}\n"
    written = written.replace("[phases.stateful]\n", f"[phases.stateful]\ngeneration.max-examples = {scenarios}\n")
    configuration = folder / "schemathesis.toml"
    configuration.write_text(written)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration), "--no-color"]
    # A server without worker processes says 503 there, and is right.
    what = ["--exclude-path", "/ready", "--seed", str(seed)]
    return subprocess.run(
        [*command, "run", f"{base_url.removesuffix('/v1')}/openapi.json", *what],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100, help="test cases of an operation; 0: no schemathesis")
    parser.add_argument("--scenarios", type=int, default=300, help="chains of calls")
    parser.add_argument("--bodies", type=int, default=10_000, help="broken forms")
    parser.add_argument("--first", type=int, default=0, help="number of the first broken form")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        as_described = not options.examples or _explored(folder, options)
        numbers = range(options.first, options.first + options.bodies)
        wrong, statuses = mutated.send(folder / "mutated", numbers, options.seed)
    print(f"{options.bodies} broken forms, answered with: {dict(sorted(statuses.items()))}")
    for complaint in wrong:
        print(complaint)
    return 0 if as_described and not wrong else 1


def _explored(folder: Path, options: argparse.Namespace) -> bool:
    with serving(folder / "explored") as base_url:
        explored = explore(base_url, folder, examples=options.examples, scenarios=options.scenarios, seed=options.seed)
    print(explored.stdout, explored.stderr, flush=True)
    return not explored.returncode


if __name__ == "__main__":
    sys.exit(main())
