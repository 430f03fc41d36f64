"""Put into .whl/ what the project needs and a CUDA image of PyTorch lacks: for a machine without a network.

python -m scripts.wheels [--python 3.12]      in an environment that the project is installed in, with a network
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What such images hold, of all that the project leads to. They may hold other versions, which do.
IMAGE = {
    "accelerate", "annotated-doc", "certifi", "click", "filelock", "fsspec", "h11", "hf-xet", "huggingface-hub", "idna",
    "jinja2", "markupsafe", "mpmath", "networkx", "numpy", "packaging", "pillow", "psutil", "pyyaml", "regex",
    "requests", "rich", "safetensors", "setuptools", "shellingham", "sympy", "torch", "tqdm", "triton", "typer",
    "typing-extensions",
}  # fmt: skip
# Nothing is muxed there, and this program is larger than all the rest.
LEFT_OUT = "imageio_ffmpeg/binaries/ffmpeg-*"
GLIBC = ("2_28", "2_27", "2_24", "2_17", "2_12", "2_5")


def lacking(python: str, root: str = "homereel") -> list[str]:
    """Return ``name==version`` of everything that ``root`` leads to and the image lacks, as installed here."""
    markers = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}

    def needed(name: str) -> Iterator[str]:
        for line in requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(markers):
                yield canonicalize_name(requirement.name)

    seen, waiting = set[str](), {root}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        if name not in IMAGE:
            waiting |= set(needed(name)) - seen
    return sorted(f"{name}=={version(name)}" for name in seen - IMAGE - {root})


def download(packages: list[str], python: str, folder: Path) -> None:
    """Fetch wheels for Linux on x86-64."""
    platforms = [f"--platform=manylinux_{glibc}_x86_64" for glibc in GLIBC]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
               "--implementation=cp", f"--python-version={python}", *platforms, "--platform=manylinux2014_x86_64",
               "-d", str(folder), *packages]  # fmt: skip
    subprocess.run(command, check=True)


def slim(wheel: Path, pattern: str = LEFT_OUT) -> None:
    """Take files out of a wheel."""
    left = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(left, "w", zipfile.ZIP_DEFLATED) as kept:
        for item in whole.infolist():
            if not fnmatch(item.filename, pattern):
                kept.writestr(item, whole.read(item))
    left.replace(wheel)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="that machine's")
    parser.add_argument("--into", type=Path, default=Path(".whl"))
    options = parser.parse_args()
    download(lacking(options.python), options.python, options.into)
    for wheel in options.into.glob("imageio_ffmpeg-*.whl"):
        slim(wheel)
    total = sum(wheel.stat().st_size for wheel in options.into.glob("*.whl"))
    print(f"{len(list(options.into.glob('*.whl')))} wheels, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
