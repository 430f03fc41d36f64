"""``homereel doctor``: a line for each finding, and a status that scripts can trust."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from server.cli import doctor
from server.doctor import Finding

Run = Callable[..., tuple[int, str, str]]
FINE = Finding("RAM", "ok", "plenty [bold]indeed")
WEAK = Finding("GPU", "note", "none")
WRONG = Finding("port 1", "fails", "is taken", "choose one with --port")


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_findings(*findings: Finding) -> None:
        monkeypatch.setattr(doctor, "examine", lambda settings, registry: iter(findings))

    return set_findings


@pytest.mark.parametrize(("findings", "status"), [((FINE, WEAK), 0), ((FINE, WRONG, WEAK), 1)])
def test_one_failed_check_fails_all(
    homereel: Run, finds: Callable[..., None], findings: tuple[Finding, ...], status: int
) -> None:
    finds(*findings)
    assert homereel("doctor")[0] == status
    code, printed, _ = homereel("doctor", "--json")
    assert code == status
    assert [json.loads(line)["state"] for line in printed.splitlines()] == [finding.state for finding in findings]


def test_what_is_wrong_is_shown_with_its_mend(homereel: Run, finds: Callable[..., None]) -> None:
    finds(FINE, WRONG)
    _, printed, _ = homereel("doctor")
    assert printed.splitlines() == [
        "✓ RAM: plenty [bold]indeed",
        "✗ port 1: is taken",
        "    mend: choose one with --port",
    ]


def test_settings_are_checked_first(homereel: Run) -> None:
    status, _, complaint = homereel("doctor", "--port", "99999999")
    assert (status, "--port" in complaint) == (2, True)
