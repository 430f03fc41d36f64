import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from pipelines.errors import InvalidImage
from pipelines.images import check_image, fitted
from pipelines.types import ImageCondition, ImageFit


def gradient(width: int, height: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "jpeg-without-a-proper-name"])
def test_pictures_are_told_by_their_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    gradient(40, 30).save(path, "WEBP" if name.endswith("webp") else "PNG" if name.endswith("png") else "JPEG")
    assert check_image(path) == (40, 30)


def claims(path: Path, width: int, height: int) -> Path:
    """Write a tiny PNG whose header promises an enormous picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))))
    return path


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (12_000, 12_000), (9_000, 9_000)])
def test_a_bomb_is_refused_by_its_header_alone(tmp_path: Path, width: int, height: int) -> None:
    with pytest.raises(InvalidImage, match="million"):
        check_image(claims(tmp_path / "bomb.png", width, height))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_that_is_cut_short_is_damaged(tmp_path: Path, kept: float, kind: str) -> None:
    path = tmp_path / "whole"
    Image.effect_noise((200, 150), 80).convert("RGB").save(path, kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InvalidImage):
        check_image(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"GIF89a" + bytes(40), b"%PDF-1.7", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_what_is_not_a_picture_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(InvalidImage):
        check_image(path)


def test_a_sliver_is_refused(tmp_path: Path) -> None:
    gradient(1, 400).save(tmp_path / "a.png")
    with pytest.raises(InvalidImage, match="1x400"):
        check_image(tmp_path / "a.png")


@pytest.mark.parametrize("fit", ["cover", "contain"])
def test_pictures_are_brought_to_size(tmp_path: Path, fit: ImageFit) -> None:
    gradient(300, 300).save(tmp_path / "a.png")
    assert fitted(ImageCondition(tmp_path / "a.png", fit=fit), 160, 96).size == (160, 96)


def test_exact_means_exact(tmp_path: Path) -> None:
    gradient(160, 96).save(tmp_path / "a.png")
    condition = ImageCondition(tmp_path / "a.png", fit="exact")
    assert fitted(condition, 160, 96).size == (160, 96)
    with pytest.raises(InvalidImage, match="exactly 96x160"):
        fitted(condition, 96, 160)
