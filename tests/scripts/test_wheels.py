"""What travels to a machine without a network."""

import zipfile
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.wheels import IMAGE, lacking, slim


def test_all_that_a_wheel_needs_travels_too_or_is_there() -> None:
    names = {package.partition("==")[0] for package in lacking("3.12")}
    markers = {"extra": "", "python_version": "3.12", "python_full_version": "3.12.0"}
    assert {"diffusers", "fastapi", "pydantic-core", "annotated-types"} <= names
    for name in names:
        for requirement in map(Requirement, requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate(markers):
                assert canonicalize_name(requirement.name) in names | IMAGE


def test_a_slimmed_wheel_keeps_all_else(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("imageio_ffmpeg/binaries/ffmpeg-linux", b"x" * 1000)
        archive.writestr("imageio_ffmpeg/__init__.py", b"one = 1")
    slim(wheel)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == ["imageio_ffmpeg/__init__.py"]
        assert archive.read("imageio_ffmpeg/__init__.py") == b"one = 1"
