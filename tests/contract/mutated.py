"""Forms with something broken in each: nothing may crash, and what is refused may leave nothing behind."""

from __future__ import annotations

import io
import random
import sqlite3
import subprocess
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from server.app import create_app
from server.settings import Settings


@dataclass(frozen=True)
class Part:
    """One part of a form."""

    name: str
    value: bytes
    filename: str | None = None
    kind: str | None = None
    headers: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Form:
    """A form on its way to an address."""

    path: str
    parts: tuple[Part, ...]
    boundary: bytes = b"b0undary"
    content_type: bytes = b"multipart/form-data; boundary=b0undary"
    notes: tuple[str, ...] = field(default=())

    def body(self) -> bytes:
        lines = bytearray()
        for part in self.parts:
            disposition = f'form-data; name="{part.name}"'
            if part.filename is not None:
                disposition += f'; filename="{part.filename}"'
            head = [b"Content-Disposition: " + disposition.encode("utf-8", "surrogateescape"), *part.headers]
            if part.kind:
                head.append(b"Content-Type: " + part.kind.encode())
            lines += b"--" + self.boundary + b"\r\n" + b"\r\n".join(head) + b"\r\n\r\n" + part.value + b"\r\n"
        return bytes(lines + b"--" + self.boundary + b"--\r\n")


def whole_forms(folder: Path) -> list[Form]:
    """Return forms that are accepted as they are."""
    drawn = io.BytesIO()
    Image.effect_noise((64, 40), 60).convert("RGB").save(drawn, "PNG")
    picture, film = drawn.getvalue(), _film(folder)
    prompt = Part("prompt", b"a red ball")
    by_url = b"data:image/png;base64," + b64encode(picture)
    video = [prompt, Part("seconds", b"2"), Part("size", b"160x96"), Part("seed", b"7"), Part("metadata[shot]", b"1")]
    source = Part("video", film, "clip.mp4", "video/mp4")
    forms = {
        "/v1/videos": [*video, Part("input_reference", picture, "first.png", "image/png")],
        "/v1/videos?url": [*video, Part("input_reference[image_url]", by_url)],
        "/v1/videos/estimate": [*video, Part("negative_prompt", b"red")],
        "/v1/videos/variations": [prompt, Part("seeds[]", b"1"), Part("seeds[]", b"2")],
        "/v1/videos/edits": [prompt, Part("model", b"sora-2"), source],
        "/v1/videos/extensions": [prompt, Part("seconds", b"2"), source],
        "/v1/videos/characters": [Part("name", b"Mossy"), source],
        "/v1/files": [Part("purpose", b"user_data"), Part("file", b'{"a": 1}\n', "a.jsonl", "application/jsonl")],
    }
    return [Form(path, tuple(parts)) for path, parts in forms.items()]


def _film(folder: Path) -> bytes:
    path = folder / "film.mp4"
    scene = "testsrc=size=160x96:rate=8:duration=2"
    command = [get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", scene, "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, check=True)
    return path.read_bytes()


Rng = random.Random
NASTY: Sequence[bytes] = (
    b"",
    b" ",
    b"\0",
    b"\r\n",
    b"--b0undary--",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"NaN",
    b"inf",
    b"-1",
    b"0",
    b"1e999",
    b"9" * 400,
    b"0x10",
    b"99999999999999999999x1",
    b"1x1",
    b"..",
    b"../../etc/passwd",
    b'{"file_id": "file-x"}',
    b'{"id": "video_x"}',
    b'{"image_url": "http://127.0.0.1/x"}',
    b"[" * 3000,
    b"a" * 70_000,
    b'{"image_url": "data:image/png;base64,AAAA"}',
    b"GIF89a",
    b"\x89PNG\r\n\x1a\n",
    b"\0\0\0\x18ftypmp42" + b"\0" * 64,
)
NAMES: Sequence[str] = (
    "",
    "prompt[",
    "prompt]",
    "a[b][c][d][e][f][g][h][i][j]",
    "prompt[]",
    "[prompt]",
    "video[id]",
    "video[]",
    "model",
    "input_reference[file_id]",
    "input_reference[image_url][]",
    "characters[][id]",
    "characters[id]",
    "file",
    "n",
    "__proto__",
    "metadata",
    "metadata[]",
    'x"; filename="y',
    "x" * 3000,
    "\udcff",
    "seeds[]",
    "models[]",
    "user",
)
HEADERS: Sequence[bytes] = (
    b"Content-Transfer-Encoding: base64",
    b"Content-Disposition: form-data",
    b"Content-Type: text/plain; charset=x",
    b"X: " + b"y" * 20_000,
    b"no colon here",
    b": nameless",
    b"Content-Length: 5",
    b"\xff\xff: \0",
    b"A:\r\n folded",
)
TYPES: Sequence[bytes] = (
    b"multipart/form-data",
    b"multipart/form-data; boundary=",
    b'multipart/form-data; boundary="b0undary"',
    b"",
    b"multipart/mixed; boundary=b0undary",
    b"application/json",
    b"application/x-www-form-urlencoded",
    b"text/plain",
    b"multipart/form-data; boundary=b0undary; charset=utf-16",
    b"multipart/form-data; boundary=" + b"x" * 500,
    b"multipart/form-data; boundary=b0undary; boundary=other",
    b";;;",
    b"MULTIPART/FORM-DATA; BOUNDARY=b0undary",
)


def _at(form: Form, rng: Rng, change: Callable[[Part], Iterable[Part]]) -> Form:
    spot = rng.randrange(len(form.parts)) if form.parts else 0
    parts = form.parts[:spot] + tuple(p for old in form.parts[spot : spot + 1] for p in change(old))
    return replace(form, parts=parts + form.parts[spot + 1 :])


PART_CHANGES: dict[str, Callable[[Part, Rng], Iterable[Part]]] = {
    "value": lambda part, rng: [replace(part, value=rng.choice(NASTY))],
    "name": lambda part, rng: [replace(part, name=rng.choice(NAMES))],
    "no part": lambda part, rng: [],
    "twice": lambda part, rng: [part, part],
    "often": lambda part, rng: [part] * 70,
    "filename": lambda part, rng: [
        replace(part, filename=rng.choice([None, "", "x", "a/../b.png", "x" * 5000, 'q"q']))
    ],
    "kind": lambda part, rng: [replace(part, kind=rng.choice(["text/html", "", "image/png", "x/y; charset=utf-7"]))],
    "header": lambda part, rng: [replace(part, headers=(rng.choice(HEADERS),))],
    "cut file": lambda part, rng: [replace(part, value=part.value[: rng.randrange(len(part.value) + 1)])],
    "noise": lambda part, rng: [replace(part, value=_noisy(part.value, rng))],
}


def _noisy(value: bytes, rng: Rng) -> bytes:
    changed = bytearray(value)
    for _ in range(rng.randint(1, 20)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _sliced(body: bytes, rng: Rng) -> bytes:
    start = rng.randrange(len(body) + 1)
    end = min(len(body), start + rng.choice([1, 2, 10, 100]))
    return rng.choice([body[:start] + body[end:], body[:end] + body[start:], body[:start], body[start:]])


BODY_CHANGES: dict[str, Callable[[bytes, Rng], bytes]] = {
    "slice": _sliced,
    "bytes": _noisy,
    "line ends": lambda body, rng: body.replace(b"\r\n", rng.choice([b"\n", b"\r"])),
    "tail": lambda body, rng: body + rng.choice(NASTY),
    "nothing": lambda body, rng: b"",
}


@dataclass(frozen=True)
class Case:
    """What is sent, and how it came about."""

    path: str
    content_type: bytes
    body: bytes
    notes: tuple[str, ...]


def case(number: int, seed: int, forms: Sequence[Form]) -> Case:
    """Break a form in one to three places; the same number and seed break the same one in the same places."""
    rng = random.Random(f"{seed}:{number}")
    form = rng.choice(forms)
    notes: list[str] = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        name = rng.choice(list(PART_CHANGES))
        notes.append(name)
        form = _at(form, rng, lambda part, name=name: PART_CHANGES[name](part, rng))
    body, content_type = form.body(), form.content_type
    if rng.random() < 0.3:
        name = rng.choice(list(BODY_CHANGES))
        notes.append(name)
        body = BODY_CHANGES[name](body, rng)
    if rng.random() < 0.1:
        content_type = rng.choice(TYPES)
        notes.append("type")
    return Case(form.path, content_type, body, tuple(notes))


class Folder:
    """What a server has stored: rows by table, and files."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._database = sqlite3.connect(next(data_dir.glob("*.sqlite3")))
        listed = self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        self._tables = [name for (name,) in listed if not name.startswith("sqlite_")]

    def stored(self) -> tuple[dict[str, int], set[str]]:
        count = "SELECT count(*) FROM {}"
        rows = {name: self._database.execute(count.format(f'"{name}"')).fetchone()[0] for name in self._tables}
        files = {str(path) for path in self._data_dir.rglob("*") if path.is_file() and ".sqlite3" not in path.name}
        return rows, files

    def close(self) -> None:
        self._database.close()


def send(data_dir: Path, numbers: Iterable[int], seed: int) -> tuple[list[str], Counter[int]]:
    """Send cases to a server without workers and return what was wrong, and how many got which status."""
    data_dir.mkdir(parents=True, exist_ok=True)
    forms = whole_forms(data_dir.parent)
    wrong: list[str] = []
    statuses: Counter[int] = Counter()
    app = create_app(Settings(data_dir=data_dir, devices=("cpu",)), supervise=False)
    with pytest.MonkeyPatch.context() as patch, TestClient(app, raise_server_exceptions=False) as client:
        patch.setattr("pipelines.holdings.installed", lambda card: True)
        with closing(Folder(data_dir)) as folder:
            before = folder.stored()
            for number in numbers:
                sent = case(number, seed, forms)
                headers = {"content-type": sent.content_type.decode("latin-1")}
                answer = client.post(sent.path, content=sent.body, headers=headers)
                statuses[answer.status_code] += 1
                complaint = _complaint(answer)
                if answer.is_success:
                    _forget(client, answer.json())
                    before = folder.stored()
                elif (after := folder.stored()) != before:
                    complaint = complaint or f"left something behind: {_difference(before, after)}"
                    before = after
                if complaint:
                    wrong.append(f"case {number} of seed {seed}, {sent.path} {sent.notes}: {complaint}")
    return wrong, statuses


def _complaint(answer: Any) -> str:
    if answer.status_code >= 500:
        return f"{answer.status_code} {answer.text[:300]}"
    if answer.status_code < 400:
        return ""
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} without the envelope: {answer.text[:300]}"
    if set(error) != {"message", "type", "param", "code"} or not error["message"] or not error["code"]:
        return f"an incomplete envelope: {error}"
    return "" if answer.headers.get("x-request-id") else "no x-request-id"


def _forget(client: TestClient, made: dict[str, Any]) -> None:
    """Delete what was accepted after all, so that the queue stays empty and the folder small."""
    places = {"video": "videos", "file": "files", "character": "videos/characters"}
    for each in made.get("data", [made]):
        place = places.get(each.get("object", "character" if str(each.get("id", "")).startswith("char_") else ""))
        if place:
            client.delete(f"/v1/{place}/{each['id']}")


def _difference(before: tuple[dict[str, int], set[str]], after: tuple[dict[str, int], set[str]]) -> str:
    rows = {name: count - before[0][name] for name, count in after[0].items() if count != before[0][name]}
    return f"rows {rows}, files {sorted(after[1] ^ before[1])}"
