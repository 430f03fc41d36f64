"""One configuration, measured in a process of its own, which ``scripts/benchmark.py`` starts.

A process each, since what a model leaves behind (allocator, kernels, caches) must not count for the next.
"""

from __future__ import annotations

import hashlib
import resource
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter

from pipelines.card import ModelCard
from pipelines.errors import OutOfMemory
from pipelines.needs import least_wish
from pipelines.registry import load_registry
from pipelines.types import Frames, GenerationRequest, Progress, Stage
from scripts.makers import Ours, Plain, Task

MOST_TRACED = 400
_REQUEST = TypeAdapter(GenerationRequest)


@dataclass
class Measured:
    """What came out. Seconds, bytes; ``error`` is why nothing did.

    Attributes:
        request: What was asked for, whole.
        run_memory: Of each clip, the cold one first: what the process had reserved, or without a GPU its RSS.
        trace: Of the cold clip: seconds since its beginning, and what of the device (without one: of RAM) was taken.
        trace_stages: When its stages began.
        difference: Mean square of what the frames are away from the group's, in levels of 8 bits; None for the first.
        contrast: Standard deviation of the pixels, in the same levels: 0 for a clip of one colour.
    """

    load_s: float = 0.0
    cold_s: float = 0.0
    warm_s: list[float] = field(default_factory=list[float])
    stage_s: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    peak_allocated: int = 0
    peak_reserved: int = 0
    peak_device: int = 0
    stage_peak: dict[str, int] = field(default_factory=dict[str, int])
    peak_rss: int = 0
    flops_per_step: float = 0.0
    matmul_flops: float = 0.0
    frames: int = 0
    size: str = ""
    fps: int = 0
    steps: int = 0
    tokens: int = 0
    repeats: bool = False
    frames_sha256: str = ""
    contrast: float = 0.0
    difference: float | None = None
    request: dict[str, Any] = field(default_factory=dict[str, Any])
    run_memory: list[int] = field(default_factory=list[int])
    trace: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    trace_stages: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    error: str = ""


class _Watch:
    """Reads clock and memory when stages begin."""

    def __init__(self, device: str) -> None:
        self._device, self._on_gpu = device, device.startswith("cuda")
        self.stage: Stage | None = None
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.began: list[tuple[float, str]] = []
        self.reserved = self.used = 0
        self._start = self._since = time.perf_counter()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(device)

    def report(self, progress: Progress) -> None:
        if progress.stage is not self.stage:
            self.turn(progress.stage)

    def turn(self, stage: Stage | None) -> None:
        """Add what has passed to the stage that ends."""
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
            free, total = torch.cuda.mem_get_info(self._device)
            self.used = max(self.used, total - free)
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved(self._device))
        now = time.perf_counter()
        if self.stage is not None:
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self._since
            if self._on_gpu:
                peak = torch.cuda.max_memory_allocated(self._device)
                self.peaks[self.stage] = max(self.peaks.get(self.stage, 0), peak)
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        if stage is not None:
            self.began.append((now - self._start, stage))
        self.stage, self._since = stage, now


def _taken(device: str) -> int:
    """Return the bytes that are taken of a GPU, by whomever, or without one of RAM by this process."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def _traced(device: str, into: list[tuple[float, int]]) -> Iterator[None]:
    """Note what is taken, again and again, while the block runs."""
    start, done = time.perf_counter(), threading.Event()

    def note() -> None:
        pause = 0.02
        while not done.wait(pause):
            into.append((time.perf_counter() - start, _taken(device)))
            if len(into) >= MOST_TRACED:
                # Half as often from now on: a long clip's trace is as long as a short one's.
                del into[::2]
                pause *= 2

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def request_of(task: Task, card: ModelCard) -> GenerationRequest:
    """Return what to make: the card's defaults but for what the task says."""
    picture = Path("/tmp/homereel-benchmark.png")
    if card.requires and not picture.exists():
        Image.linear_gradient("L").resize((1280, 720)).convert("RGB").save(picture)
    wish = replace(
        least_wish(card, picture),
        prompt="A fisherman in a yellow coat hauls a net on a small boat at dawn, slow tracking shot",
        size=task.size, seconds=task.seconds, num_inference_steps=task.steps, seed=42,
    )  # fmt: skip
    if task.tiny:
        steps = max(2, card.sampling.min_inference_steps)
        wish = replace(wish, size=None, seconds=None, num_frames=card.shape.min_frames, num_inference_steps=steps)
    return card.resolve(wish).request


def card_of(task: Task) -> ModelCard:
    """Return the card; a tiny model's makes tiny clips."""
    card = load_registry().cards[task.card]
    if not task.tiny:
        return card
    side = 2 * card.shape.pixels_per_token
    size = type(card.shape.sizes[0])(width=max(64, 3 * side // 2 // side * side), height=max(64, side))
    return card.model_copy(update={"shape": card.shape.model_copy(update={"sizes": (size,)})})


def measure(task: Task) -> Measured:
    """Make one clip and then ``runs`` more, and say what they took. Running out of memory is a result too."""
    done = Measured()
    device = task.plan.device
    if device.startswith("cuda") and task.cap_gib:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, task.cap_gib * 2**30 / total), device)
    card = card_of(task)
    request = request_of(task, card)
    done.frames, done.size, done.fps = request.shape.frames, request.shape.size, request.shape.fps
    done.steps, done.tokens = request.steps, card.shape.tokens(request.shape)
    done.request = _REQUEST.dump_python(request, mode="json")
    try:
        began = time.perf_counter()
        with _maker(task, card) as maker:
            done.load_s = time.perf_counter() - began
            _run_all(task, maker, request, done)
    except (OutOfMemory, torch.OutOfMemoryError) as error:
        done.error = f"out of memory: {str(error).splitlines()[0][:200]}"
    done.peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    done.matmul_flops = matmul_flops(device, getattr(torch, task.plan.dtype))
    return done


def _run_all(task: Task, maker: Any, request: GenerationRequest, done: Measured) -> None:
    hashes: list[str] = []
    for number in range(task.runs + 1):
        watch = _Watch(task.plan.device)
        traced = _traced(task.plan.device, done.trace) if number == 0 else nullcontext()
        began = time.perf_counter()
        with traced:
            frames = np.concatenate(list(maker.clip(request, watch.report)))
            watch.turn(None)
        seconds = time.perf_counter() - began
        hashes.append(hashlib.sha256(frames.tobytes()).hexdigest())
        if number == 0:
            done.cold_s, done.trace_stages = seconds, watch.began
            _look_at(frames, task, request, done)
        else:
            done.warm_s.append(seconds)
            for stage, took in watch.seconds.items():
                done.stage_s.setdefault(stage, []).append(took)
        done.peak_reserved = max(done.peak_reserved, watch.reserved)
        done.peak_device = max(done.peak_device, watch.used)
        done.run_memory.append(watch.reserved or _taken("cpu"))
        done.stage_peak = {k: max(done.stage_peak.get(k, 0), v) for k, v in watch.peaks.items()} or done.stage_peak
    done.peak_allocated = max(done.stage_peak.values(), default=0)
    done.repeats, done.frames_sha256 = len(set(hashes)) == 1, hashes[0]
    # Of two stages, the steps of one are not those of the other.
    done.flops_per_step = 0.0 if request.refine_steps else maker.flops(request)


def _look_at(frames: Frames, task: Task, request: GenerationRequest, done: Measured) -> None:
    """Check what was made, and compare it with what the group's first made of the same request."""
    count, height, width = frames.shape[:3]
    if (count, height, width) != request.shape[:3]:
        done.error = (
            f"made {count} frames of {width}x{height} instead of {request.shape.frames} of {request.shape.size}"
        )
        return
    # In pieces: float64 of a whole clip would be eight times as large.
    done.contrast = float(np.sqrt(np.mean([frame.var(dtype=np.float64) for frame in frames])))
    if not task.frames:
        return
    kept = Path(task.frames)
    if kept.exists():
        others = np.load(kept, mmap_mode="r")
        done.difference = float(np.mean([_square(a, b) for a, b in zip(frames, others, strict=True)]))
    elif not task.is_lossy:
        np.save(kept, frames)


def _square(one: Frames, other: Frames) -> float:
    return float(np.mean((one.astype(np.float32) - other) ** 2))


@contextmanager
def _maker(task: Task, card: ModelCard) -> Iterator[Any]:
    made = (Plain if task.plain else Ours)(task, card)
    yield made
    made.close()


def matmul_flops(device: str, dtype: torch.dtype, side: int = 8192) -> float:
    """Return the floating point operations a second that a large product of matrices reaches."""
    side = side if device.startswith("cuda") else 512
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def seconds() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        for _ in range(10):
            torch.mm(a, b)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / 10

    seconds()
    return 2 * side**3 / min(seconds() for _ in range(3))


def answer(task: Task, sender: Connection) -> None:
    """Measure and send what came out: the whole life of a process."""
    torch.set_grad_enabled(mode=False)
    try:
        measured = measure(task)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the row says
        traceback.print_exc()
        measured = Measured(error=f"{type(error).__name__}: {error}"[:200])
    sender.send(measured)
