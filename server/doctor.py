"""Whether this machine is fit to make videos: one finding per thing that can be wrong, each with its mend."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2
import imageio_ffmpeg
from huggingface_hub import get_token
from pydantic import BaseModel, ValidationError

from pipelines import snapshot
from pipelines.holdings import as_installed, files_of
from pipelines.machine import free_disk_bytes, free_ram_bytes, ram_bytes
from pipelines.needs import GIB
from pipelines.registry import Registry
from server.devices import Gpu, gpus, torch_is_for_cpus
from server.settings import Settings, visible_gpus
from server.space import GB

State = Literal["ok", "note", "fails"]
# imageio_ffmpeg ships no types.
_ffmpeg: Any = imageio_ffmpeg
_ENCODERS = ("libx264", "aac")
# PyTorch takes its time to load from a slow disk.
_TORCH_S = 300.0


@dataclass(frozen=True)
class Finding:
    """What was looked at and found; ``mend`` says what to do about it."""

    check: str
    state: State
    message: str
    mend: str = ""


class GpuOfTorch(BaseModel):
    """A GPU as PyTorch sees it."""

    name: str
    capability: tuple[int, int] | None = None
    free_bytes: int = 0
    memory_bytes: int = 0
    attention: list[str] = []
    error: str | None = None


class Torch(BaseModel):
    """What ``pipelines.accel.about`` says."""

    torch: str
    cuda: str | None
    architectures: list[str]
    gpus: list[GpuOfTorch]


def examine(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """Look at everything, one after the other."""
    found = gpus()
    torch, refusal = ask_torch()
    yield torch_finding(torch, refusal)
    yield driver_finding(found, torch)
    for index, gpu in enumerate(torch.gpus if torch else []):
        yield from gpu_findings(index, gpu, torch.architectures if torch else [])
    yield ram_finding(ram_bytes(), free_ram_bytes())
    yield folder_finding("data folder", settings.data_dir, settings.min_free_gb)
    yield folder_finding("model cache", snapshot.shared_cache(), 0)
    yield downloads_finding(snapshot.shared_cache())
    yield weights_finding(registry)
    yield ffmpeg_finding()
    yield token_finding(get_token())
    yield port_finding(settings.host, settings.port)


def ask_torch() -> tuple[Torch | None, str]:
    """Return what PyTorch says in a process of its own, or why it says nothing."""
    command = [sys.executable, "-P", "-m", "pipelines.accel.about"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TORCH_S, check=False)  # noqa: S603 - our own program
    except subprocess.TimeoutExpired:
        return None, f"it did not load within {_TORCH_S:.0f} s"
    with contextlib.suppress(ValidationError, IndexError):
        return Torch.model_validate_json(done.stdout.splitlines()[-1]), ""
    said = done.stderr.strip().splitlines()
    return None, said[-1] if said else f"it ended with status {done.returncode}"


def torch_finding(torch: Torch | None, refusal: str) -> Finding:
    """Say whether PyTorch loads."""
    if torch is None:
        return Finding(
            "PyTorch", "fails", f"cannot be loaded: {refusal}", "pip install --force-reinstall -c constraints.txt ."
        )
    built = f"for CUDA {torch.cuda}" if torch.cuda else "for CPUs"
    return Finding("PyTorch", "ok", f"{torch.torch}, built {built}")


def driver_finding(found: Sequence[Gpu], torch: Torch | None) -> Finding:
    """Say whether the GPUs that the driver knows are those that PyTorch can use."""
    if not found:
        return Finding(
            "GPU", "note", "no NVIDIA driver answers: videos are made on the CPU, which large models cannot do"
        )
    names = ", ".join(gpu.name for gpu in found)
    if visible_gpus() == ():
        return Finding("GPU", "note", f"{names}: hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES")
    if torch_is_for_cpus():
        return Finding(
            "GPU", "fails", f"{names}: this PyTorch is built for CPUs alone", "pip install --force-reinstall torch"
        )
    if torch is not None and not torch.gpus:
        return Finding(
            "GPU",
            "fails",
            f"{names}: PyTorch finds no GPU; driver {found[0].driver} may be too old for CUDA {torch.cuda}",
            "install a newer NVIDIA driver, or a PyTorch for an older CUDA: https://pytorch.org/get-started/locally/",
        )
    return Finding("GPU", "ok", f"{names}; driver {found[0].driver}")


def gpu_findings(index: int, gpu: GpuOfTorch, architectures: Sequence[str]) -> Iterator[Finding]:
    """Say of one GPU whether PyTorch has code for it, and how much of its memory is free."""
    check = f"cuda:{index}"
    if gpu.error is not None or gpu.capability is None:
        yield Finding(check, "fails", f"cannot be used: {gpu.error}", "see what `nvidia-smi` says; restart the machine")
        return
    number = "{}.{}".format(*gpu.capability)
    if not runs_on(gpu.capability, architectures):
        yield Finding(
            check,
            "fails",
            f"{gpu.name} has compute capability {number}; this PyTorch has code for {' '.join(architectures)}",
            "install a PyTorch that has it: https://pytorch.org/get-started/locally/",
        )
        return
    kernels = ", ".join(gpu.attention) or "none"
    half = "" if gpu.capability >= (8, 0) else "; no bfloat16: most models need twice the memory on it"
    yield Finding(check, "note" if half else "ok", f"compute capability {number}{half}; attention: {kernels}")
    used = gpu.memory_bytes - gpu.free_bytes
    memory = f"{gpu.free_bytes / GIB:.1f} of {gpu.memory_bytes / GIB:.1f} GiB free"
    if used > max(2 * GIB, gpu.memory_bytes // 10):
        yield Finding(f"{check} memory", "note", memory, "`nvidia-smi` shows who holds the rest")
    else:
        yield Finding(f"{check} memory", "ok", memory)


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Tell whether code for one of the architectures runs: of the same generation, or as text that is translated."""
    for name in architectures:
        kind, _, digits = name.partition("_")
        digits = digits.rstrip("af")
        if not digits.isdecimal():
            continue
        major, minor = int(digits[:-1]), int(digits[-1])
        if kind == "compute" and (major, minor) <= capability:
            return True
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
    return False


def ram_finding(total: int, free: int) -> Finding:
    """Say how much memory the machine has."""
    message = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < 2 * GIB:
        return Finding("RAM", "fails", message, "end other programs; even the smallest model needs 1 GiB")
    if total < 16 * GIB:
        return Finding(
            "RAM", "note", message, "models whose parts come and go need their size in RAM: see homereel plan"
        )
    return Finding("RAM", "ok", message)


def folder_finding(check: str, folder: Path, least_gb: float) -> Finding:
    """Say whether a folder can be written to and has room."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding(check, "fails", f"{folder} cannot be written to: {error.strerror}", f"chown or chmod {there}")
    free = free_disk_bytes(folder)
    message = f"{folder}, {free / GB:.1f} GB free"
    if free < least_gb * GB:
        return Finding(check, "fails", f"{message}: the queue pauses below {least_gb:g} GB", "homereel prune")
    return Finding(check, "ok", message)


def downloads_finding(cache: Path) -> Finding:
    """Say whether downloads were cut short."""
    parts = list(cache.glob("*/blobs/*.incomplete"))
    if not parts:
        return Finding("downloads", "ok", "none was cut short")
    size = sum(path.stat().st_size for path in parts)
    return Finding(
        "downloads",
        "note",
        f"{len(parts)} cut short, {size / GB:.1f} GB",
        "`homereel pull MODEL` goes on where it stopped; or delete the *.incomplete files",
    )


def weights_finding(registry: Registry) -> Finding:
    """Say which models are here, and whether their files are whole as far as their headers tell."""
    here: list[str] = []
    broken: list[str] = []
    for card in filter(None, map(as_installed, registry.cards.values())):
        files = [file for file in files_of(card) if file.suffix in snapshot.SINGLE_FILES]
        here.append(card.id)
        broken += [f"{file}: {flaw}" for file in files if (flaw := snapshot.flaw_of(file))]
    broken = list(dict.fromkeys(broken))
    if registry.unreadable:
        return Finding("models", "fails", "; ".join(registry.unreadable), "mend the card, or delete it")
    if broken:
        return Finding("models", "fails", "; ".join(broken), "`homereel pull MODEL` fetches what is damaged again")
    if not here:
        return Finding("models", "fails", "none is installed", "`homereel list` shows what `homereel pull` can fetch")
    return Finding("models", "ok", f"{', '.join(here)} installed, files whole")


def ffmpeg_finding(locate: Callable[[], str] = _ffmpeg.get_ffmpeg_exe) -> Finding:
    """Say whether ffmpeg is there and can write what videos need."""
    mend = "pip install --force-reinstall imageio-ffmpeg, or unset IMAGEIO_FFMPEG_EXE"
    try:
        program = locate()
        command = [program, "-hide_banner", "-encoders"]
        listing = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout  # noqa: S603 - the package's own
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Finding("ffmpeg", "fails", f"does not run: {error}", mend)
    known = {line.split()[1] for line in listing.splitlines() if len(line.split()) > 1}
    missing = [name for name in _ENCODERS if name not in known]
    if missing:
        return Finding("ffmpeg", "fails", f"{program} lacks {', '.join(missing)}", mend)
    return Finding("ffmpeg", "ok", f"{program}, with {', '.join(_ENCODERS)}")


def token_finding(token: str | None) -> Finding:
    """Say whether gated models can be fetched. The token itself is nobody's business."""
    if token is None:
        return Finding("Hugging Face token", "note", "none: gated models cannot be fetched", "hf auth login")
    return Finding("Hugging Face token", "ok", "is there")


def port_finding(host: str, port: int) -> Finding:
    """Say whether the port is free, or already this server's."""
    check = f"port {port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return Finding(check, "fails", f"{host} cannot be listened on: {error.strerror}", "choose another --host")
    else:
        return Finding(check, "ok", "is free")
    if _is_ours(host, port):
        return Finding(check, "ok", "a Homereel server answers there")
    return Finding(check, "fails", "is taken by another program", "choose one with --port, 0 for any free one")


def _is_ours(host: str, port: int) -> bool:
    shown = f"[{host}]" if ":" in host else host
    try:
        answer = httpx2.get(f"http://{shown}:{port}/health", timeout=5).json()
    except (httpx2.HTTPError, ValueError):
        return False
    return isinstance(answer, dict) and "version" in answer
