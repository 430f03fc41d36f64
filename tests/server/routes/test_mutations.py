"""Whatever bytes arrive, the answer is a video or a refusal in the envelope, never a fault of the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.app import create_app
from server.settings import Settings
from tests.server.routes.conftest import picture, refused

FORM = (
    b'--B\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na red ball\r\n'
    b'--B\r\nContent-Disposition: form-data; name="seconds"\r\n\r\n4\r\n'
    b'--B\r\nContent-Disposition: form-data; name="x[][y]"\r\n\r\n4\r\n'
    b'--B\r\nContent-Disposition: form-data; name="input_reference"; filename="a.txt"\r\n'
    b"Content-Type: image/png\r\n\r\n" + picture(size=(16, 16))[:80] + b"\r\n--B--\r\n"
)
DOCUMENT = b'{"prompt": "a red ball", "seconds": "4", "size": "160x96", "seed": 5, "x": [{"y": null}, 1e3, "\\u00e9"]}'

NAMES = st.sampled_from(
    ["prompt", "model", "seconds", "size", "width", "height", "fps", "num_frames", "seed", "negative_prompt",
     "num_inference_steps", "guidance_scale", "input_reference", "lora", "x"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["4", "160x96", "sora-2"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
UNHURRIED = settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("mutations")
    app = create_app(Settings(data_dir=folder, max_upload_mb=1, max_queued=1_000_000), supervise=False)
    with TestClient(app) as client:
        yield client


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """The original after up to five cuts, insertions and repetitions."""
    content = original
    for _ in range(draw(st.integers(1, 5))):
        first, second = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        put = draw(
            st.binary(max_size=8) | st.just(content[first:second] * 2) | st.sampled_from([b"\r\n", b"--B", b'"', b"["])
        )
        content = content[:first] + put + content[second:]
    return content


def settle(answer: Any) -> None:
    if answer.status_code == 200:
        assert answer.json()["status"] == "queued"
    else:
        refused(answer, answer.status_code)
        assert 400 <= answer.status_code < 500


@UNHURRIED
@given(content=mutated(FORM))
def test_any_form(client: TestClient, content: bytes) -> None:
    settle(client.post("/v1/videos", content=content, headers={"content-type": "multipart/form-data; boundary=B"}))


@UNHURRIED
@given(content=mutated(DOCUMENT))
def test_any_json_text(client: TestClient, content: bytes) -> None:
    settle(client.post("/v1/videos", content=content, headers={"content-type": "application/json"}))


@UNHURRIED
@given(parameters=st.dictionaries(NAMES, VALUES), prompt=st.text())
def test_any_json_values(client: TestClient, parameters: dict[str, Any], prompt: str) -> None:
    content = json.dumps({"prompt": prompt, **parameters}).encode()
    settle(client.post("/v1/videos", content=content, headers={"content-type": "application/json"}))


@UNHURRIED
@given(
    content=st.sampled_from([FORM, DOCUMENT]),
    kind=st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"").replace(b"\0", b"")),
)
def test_any_content_type(client: TestClient, content: bytes, kind: bytes) -> None:
    for start in (b"", b"multipart/form-data; ", b"multipart/form-data; boundary=", b"application/"):
        settle(client.post("/v1/videos", content=content, headers={b"content-type": start + kind}))
