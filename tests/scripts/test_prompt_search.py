from __future__ import annotations

import re
from pathlib import Path

from scripts.prompt_search import QUESTIONS, measure


def test_every_question_is_asked_and_finds_what_is_there(tmp_path: Path) -> None:
    lines = measure(60, 1, tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:]]
    assert [row[0] for row in rows] == [name for name, _, _ in QUESTIONS]
    found = {row[0]: int(row[1]) for row in rows}
    assert found["one prompt, by a word that no other has"] == 1
    assert found["one prompt, by the beginning of that word"] == 1
    assert found["a word that no prompt has"] == 0
    assert found["a word that every prompt has"] == found["no words: the newest"] == 20
    assert all(re.fullmatch(r"p50 [\d.]+ ms, p95 [\d.]+ ms, max [\d.]+ ms \(n=1\)", row[2]) for row in rows)
