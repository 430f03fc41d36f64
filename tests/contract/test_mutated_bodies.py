"""Some hundred broken forms; scripts/fuzz.py sends ten thousand. Each is named by its number, to send it alone."""

from __future__ import annotations

from pathlib import Path

from tests.contract import mutated

HOW_MANY, SEED = 300, 1


def test_whole_forms_are_accepted(tmp_path: Path) -> None:
    """Otherwise the broken ones would be refused for what all of them have in common."""
    from fastapi.testclient import TestClient

    from server.app import create_app
    from server.settings import Settings

    with TestClient(create_app(Settings(data_dir=tmp_path / "data"), supervise=False)) as client:
        for form in mutated.whole_forms(tmp_path):
            answer = client.post(form.path, content=form.body(), headers={"content-type": form.content_type.decode()})
            assert answer.status_code == 200, (form.path, answer.text)


def test_broken_forms_are_answered_in_the_envelope_and_leave_nothing(tmp_path: Path) -> None:
    wrong, statuses = mutated.send(tmp_path / "data", range(HOW_MANY), SEED)
    assert not wrong, "\n".join(wrong)
    # Most are refused, and some breaks do not matter: otherwise this would test one thing only.
    assert statuses[400] > HOW_MANY / 2
    assert statuses[200] > HOW_MANY / 20
