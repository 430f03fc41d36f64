"""Pictures that are made to do harm: refused in the envelope, quickly, and nothing of them is kept."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pipelines.images import fitted
from pipelines.types import ImageCondition, ImageFit
from server import images, sandbox
from server.deps import Services
from server.slots import Slots
from tests.server.routes.conftest import movie, picture, refused, send_file

SIDE = 64
# What zlib makes of a hundred megabytes of nothing.
BOMB = zlib.compress(bytes(100_000_000), 9)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*extra: bytes, width: int = SIDE, height: int = SIDE, data: bytes | None = None) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    lines = (b"\0" + bytes(3 * SIDE)) * SIDE
    body = chunk(b"IDAT", zlib.compress(lines) if data is None else data)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + chunk(b"IEND", b"")


def jpeg_that_claims(width: int, height: int) -> bytes:
    content = bytearray(picture("JPEG"))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def webp_that_claims(side: int) -> bytes:
    into = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(into, "WEBP", lossless=True)
    content = bytearray(into.getvalue())
    # VP8L: 14 bits each of width and height, less one, after a byte of signature.
    start = content.index(b"VP8L") + 9
    content[start : start + 4] = struct.pack("<I", (side - 1) | (side - 1) << 14)
    return bytes(content)


def behind(head: bytes) -> bytes:
    """A polyglot: it begins like one thing and goes on like another."""
    return head + b"<html><script>alert(1)</script></html>" + b"PK\x03\x04" + bytes(500)


HARMFUL: dict[str, Callable[[], bytes]] = {
    "60,000 x 60,000 pixels": lambda: png(width=60_000, height=60_000),
    "60,000 pixels in a row": lambda: png(width=60_000, height=1),
    "one pixel": lambda: picture("PNG", (1, 1)),
    "no pixel": lambda: png(width=0, height=0),
    "2**31 pixels a side": lambda: png(width=2**31 - 1, height=2**31 - 1),
    "JPEG that claims 65,535 x 65,535": lambda: jpeg_that_claims(65_535, 65_535),
    "WebP that claims 16,384 x 16,384": lambda: webp_that_claims(16_384),
    "pixels that unpack to 100 MB": lambda: png(data=BOMB, height=2),
    "text that unpacks to 100 MB": lambda: png(chunk(b"zTXt", b"k\0\0" + BOMB)),
    "international text that does": lambda: png(chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB)),
    "colour profile that does": lambda: png(chunk(b"iCCP", b"k\0\0" + BOMB)),
    "checksum that is wrong": lambda: png()[:-20] + b"\0" * 4 + png()[-16:],
    "page behind a PNG's signature": lambda: behind(b"\x89PNG\r\n\x1a\n"),
    "page behind a JPEG's": lambda: behind(b"\xff\xd8\xff\xe0"),
    "page behind a WebP's": lambda: behind(b"RIFF\xff\xff\0\0WEBPVP8L"),
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/etc/passwd) (r) file",
    "MP4": movie,
    "zip": lambda: b"PK\x03\x04" + bytes(300),
    "pickle": lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("attack", HARMFUL)
def test_a_harmful_picture_is_refused_and_not_kept(client: TestClient, attack: str) -> None:
    error = refused(send_file(client, HARMFUL[attack]()))
    assert (error["param"], error["code"]) == ("input_reference", "invalid_image")


@pytest.mark.parametrize("fit", ["cover", "contain"])
@pytest.mark.parametrize("size", [(60_000, 8), (8, 60_000)])
def test_a_picture_of_extreme_proportions_fits_like_any_other(
    tmp_path: Path, size: tuple[int, int], fit: ImageFit
) -> None:
    path = tmp_path / "strip.png"
    Image.new("RGB", size).save(path)
    assert images.check(path, 50_000_000) == size
    assert fitted(ImageCondition(path, fit=fit), 160, 96).size == (160, 96)


def test_what_follows_a_sound_picture_is_never_run_or_served(client: TestClient) -> None:
    polyglot = picture("PNG") + b"<script>alert(1)</script>"
    upload = client.post("/v1/files", data={"purpose": "vision"}, files={"file": ("x.html", polyglot, "text/html")})
    served = client.get(f"/v1/files/{upload.json()['id']}/content")
    assert served.content == polyglot
    assert served.headers["content-type"] == "application/octet-stream"
    assert served.headers["x-content-type-options"] == "nosniff"
    assert served.headers["content-disposition"].startswith("attachment")
    assert "default-src 'none'" in served.headers["content-security-policy"]


@pytest.mark.parametrize(
    "greed",
    [
        "x = bytearray(64 << 30)",
        "open('/tmp/x', 'wb').write(bytes(300 << 20))",
        "import os\nwhile True: os.urandom(99)",
    ],
    ids=["memory", "disk", "time"],
)
def test_the_process_that_decodes_can_take_no_more_than_its_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, greed: str
) -> None:
    monkeypatch.setattr(sandbox, "WALL_S", 3)
    package = tmp_path / "greedy.py"
    prelude = "import resource, signal\nfrom server import sandbox\nsandbox.CPU_S = 1\nsandbox.confine()\n"
    package.write_text(prelude + greed.replace("/tmp/x", str(tmp_path / "x")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with pytest.raises(sandbox.Overrun):
        sandbox.run("greedy")


def test_only_so_many_look_at_uploads_and_the_others_come_back(client: TestClient, services: Services) -> None:
    busy = Slots(at_once=1, waiting=0)
    object.__setattr__(services, "decoders", busy)
    with busy.taken():
        answer = send_file(client, picture())
    error = refused(answer, 503)
    assert (error["code"], answer.headers["retry-after"]) == ("server_busy", "3")
    assert send_file(client, picture()).status_code == 200
