"""What cannot be made is refused with a name and a sentence, and leaves nothing behind."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.server.routes.conftest import PROMPT, app_in, files_in, in_pieces, picture, refused, send_file


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refusals")


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[TestClient]:
    """One server for the whole module: it is as good as new after every refusal."""
    with TestClient(app_in(data_dir)) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_stored(client: TestClient, data_dir: Path) -> Iterator[None]:
    yield
    assert client.get("/v1/videos").json()["data"] == []
    assert files_in(data_dir / "assets") == []


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": "no-such-model"}, "model"),
    ({"model": ""}, "model"),
    ({"model": "x" * 5000}, "model"),
    ({"size": "4000x100"}, "size"),
    ({"size": "160x160"}, "size"),
    ({"size": "161x97"}, "size"),
    ({"size": "0x0"}, "size"),
    ({"size": "1280*720"}, "size"),
    ({"size": "1280x720x3"}, "size"),
    ({"size": "-160x-96"}, "size"),
    ({"size": "large"}, "size"),
    ({"size": ""}, "size"),
    ({"size": "160x96\n"}, "size"),
    ({"seconds": 0}, "seconds"),
    ({"seconds": -1}, "seconds"),
    ({"seconds": "abc"}, "seconds"),
    ({"seconds": ""}, "seconds"),
    ({"seconds": 10**9}, "seconds"),
    ({"seconds": "nan"}, "seconds"),
    ({"seconds": "inf"}, "seconds"),
    ({"seconds": "1e400"}, "seconds"),
    ({"seconds": "4", "num_frames": 33}, "num_frames"),
    ({"num_frames": 0}, "num_frames"),
    ({"num_frames": 30}, "num_frames"),
    ({"num_frames": 10**30}, "num_frames"),
    ({"num_frames": "33.5"}, "num_frames"),
    ({"fps": 24}, "fps"),
    ({"fps": 0}, "fps"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**32}, "seed"),
    ({"seed": 2**70}, "seed"),
    ({"seed": "red"}, "seed"),
    ({"num_inference_steps": 0}, "num_inference_steps"),
    ({"num_inference_steps": 101}, "num_inference_steps"),
    ({"guidance_scale": -1}, "guidance_scale"),
    ({"guidance_scale": "NaN"}, "guidance_scale"),
    ({"guidance_scale": 1000}, "guidance_scale"),
    ({"width": 160}, "height"),
    ({"height": 96}, "width"),
    ({"width": 160, "height": 96, "size": "320x192"}, "size"),
    ({"width": -160, "height": -96}, "size"),
    ({"width": 2**62, "height": 2**62}, "size"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": "  \n"}, "prompt"),
    ({"prompt": "x" * 32_001}, "prompt"),
    ({"prompt": "a\0b"}, "prompt"),
    ({"negative_prompt": "x" * 32_001}, "negative_prompt"),
    ({"colour": "red"}, "colour"),
    ({"promt": "a red ball"}, "promt"),
    ({"flow_shift": 3.0}, "flow_shift"),
    ({"step_cache": 1.5}, "step_cache"),
    ({"step_cache": True}, "step_cache"),
    ({"guidance_scale_2": 3.0}, "guidance_scale_2"),
    ({"lora": "x"}, "lora"),
    ({"lora": "../x"}, "lora"),
    ({"lora": "x:much"}, "lora"),
    ({"lora": "x:9"}, "lora"),
    ({"lora": [{"name": "x", "path": "/etc/passwd"}]}, "lora"),
    ({"lora": []}, "lora"),
    ({"generate_sound": "true"}, "generate_sound"),
    ({"aspect_ratio": "21:9"}, "aspect_ratio"),
    ({"aspect_ratio": "16x9"}, "aspect_ratio"),
    ({"aspect_ratio": "16:9", "size": "160x96"}, "aspect_ratio"),
    ({"n": 2}, "n"),
    ({"input_reference": "not a picture"}, "input_reference"),
    ({"input_reference": "https://example.com/a.png"}, "input_reference"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "param"), BAD)
def test_what_cannot_be_made_is_refused_with_its_name_and_a_sentence(
    post: Callable[..., Any], change: dict[str, Any], param: str
) -> None:
    error = refused(post({**PROMPT, **change}))
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert 15 < len(error["message"]) < 600


def test_a_prompt_is_required(post: Callable[..., Any]) -> None:
    error = refused(post({"seconds": "4"}))
    assert (error["param"], error["code"]) == ("prompt", "missing_parameter")


def test_an_error_says_what_would_work(client: TestClient) -> None:
    sentences = {
        "size": ({"size": "large"}, "WIDTHxHEIGHT"),
        "seconds": ({"seconds": "abc"}, "'4'"),
        "promt": ({"promt": "x"}, "Did you mean 'prompt'?"),
        "model": ({"model": "x"}, "sora-2-pro"),
        "image_reference": ({"image_reference": "x"}, "'sora-2' does not honour 'image_reference'"),
    }
    for param, (change, advice) in sentences.items():
        error = refused(client.post("/v1/videos", json={**PROMPT, **change}))
        assert error["param"] == param
        assert advice in error["message"]


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({**PROMPT, "seconds": True}, "seconds"),
        ({**PROMPT, "seconds": [4]}, "seconds"),
        ({**PROMPT, "seed": 1.5}, "seed"),
        ({**PROMPT, "seed": {"a": 1}}, "seed"),
        ({**PROMPT, "model": {}}, "model"),
        ({**PROMPT, "size": 5}, "size"),
        ({**PROMPT, "input_reference": 5}, "input_reference"),
        ({**PROMPT, "input_reference": []}, "input_reference"),
        ({**PROMPT, "input_reference": {}}, "input_reference"),
        ({**PROMPT, "input_reference": {"image_url": 5}}, "input_reference"),
        ({**PROMPT, "input_reference": {"image_url": "https://127.0.0.1/a.png"}}, "input_reference.image_url"),
        ({**PROMPT, "input_reference": {"image_url": "data:image/png;base64,&&&"}}, "input_reference.image_url"),
        ({**PROMPT, "input_reference": {"image_url": "data:image/png;base64,AAAA"}}, "input_reference"),
        ({**PROMPT, "input_reference": {"video": "x"}}, "input_reference"),
    ],
)
def test_json_of_the_wrong_type_is_refused(client: TestClient, parameters: dict[str, Any], param: str) -> None:
    assert refused(client.post("/v1/videos", json=parameters))["param"] == param


BOUNDARY = {"content-type": "multipart/form-data; boundary=B"}
PART = b'--B\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na red ball\r\n'


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"", {"content-type": "application/json"}),
        (b"prompt=a", {"content-type": "application/json"}),
        (b'{"prompt": "a"', {"content-type": "application/json"}),
        (b'["prompt"]', {"content-type": "application/json"}),
        (b'{"prompt": "a", "seconds": 1e400}', {"content-type": "application/json"}),
        (b'{"prompt": "a", "seconds": NaN}', {"content-type": "application/json"}),
        (b'{"prompt": "a", "prompt": "b"}', {"content-type": "application/json"}),
        (b'{"prompt": "\\ud800"}', {"content-type": "application/json"}),
        (b'{"prompt": "a", "\\ud800": 1}', {"content-type": "application/json"}),
        (b'{"prompt": "a", "model": "\\ud800"}', {"content-type": "application/json"}),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", {"content-type": "application/json"}),
        (b"[" * 50_000, {"content-type": "application/json"}),
        (b"prompt=a+red+ball", {"content-type": "application/x-www-form-urlencoded"}),
        (b"a red ball", {"content-type": "text/plain"}),
        (PART + b"--B--\r\n", {"content-type": "multipart/form-data"}),
        (PART + b"--B--\r\n", {"content-type": "multipart/form-data; boundary="}),
        (PART, BOUNDARY),
        (PART[:-5], BOUNDARY),
        (PART + PART + b"--B--\r\n", BOUNDARY),
        (b"--B--\r\n", BOUNDARY),
        (b"no form at all", BOUNDARY),
        (b"--B\r\n\r\na\r\n--B--\r\n", BOUNDARY),
        (PART + b"".join(PART.replace(b"prompt", b"p%d" % i) for i in range(100)) + b"--B--\r\n", BOUNDARY),
        (PART.replace(b'"prompt"', b'"prompt"; filename="p.txt"') + b"--B--\r\n", BOUNDARY),
        (PART.replace(b'"prompt"', b'"prompt[x]"') + b"--B--\r\n", BOUNDARY),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_refused(client: TestClient, content: bytes, headers: dict[str, str]) -> None:
    refused(client.post("/v1/videos", content=content, headers=headers))


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"GIF89a" + bytes(100),
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBP",
        picture("PNG")[:-300],
        picture("JPEG")[:-300],
        picture("WEBP")[:-300],
        picture("PNG", (4, 4)),
        picture("JPEG", (1100, 1000)),
        png_that_claims(60_000, 60_000),
        png_that_claims(0, 0),
    ],
    ids=lambda content: f"{content[:6]!r}-{len(content)}",
)
def test_a_file_that_is_no_sound_picture_is_refused(client: TestClient, content: bytes) -> None:
    error = refused(send_file(client, content))
    assert (error["param"], error["code"]) == ("input_reference", "invalid_image")


def test_two_pictures_are_one_too_many(client: TestClient) -> None:
    files = [("input_reference", ("a.png", picture())), ("input_reference", ("b.png", picture()))]
    assert refused(client.post("/v1/videos", data=PROMPT, files=files))["code"] == "duplicate_parameter"


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_refused(client: TestClient, announced: bool) -> None:
    content = PART + b'--B\r\nContent-Disposition: form-data; name="input_reference"; filename="x"\r\n\r\n'
    content += bytes(2_000_001) + b"\r\n--B--\r\n"
    body = content if announced else in_pieces(content)
    answer = client.post("/v1/videos", content=body, headers=BOUNDARY)
    assert refused(answer, 413)["code"] == "payload_too_large"
    assert answer.headers["connection"] == "close"
