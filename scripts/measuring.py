"""One configuration, measured in a process of its own, which ``scripts/benchmark.py`` starts.

A process each, since what a model leaves behind (allocator, kernels, caches) must not count for the next.
"""

from __future__ import annotations

import hashlib
import inspect
import resource
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from pipelines import engine
from pipelines.accel.host import Host
from pipelines.card import ModelCard
from pipelines.errors import OutOfMemory
from pipelines.needs import least_wish
from pipelines.plan import MemoryPlan, Offload
from pipelines.registry import family_of, load_registry, weights_folder
from pipelines.types import Frames, GenerationRequest, Progress, Stage
from scripts import random_weights


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        card: Id of the card.
        plan: How it runs; of a plain pipeline, device, dtype, offload and tiling count.
        plain: Whether diffusers alone makes the clip, in one call.
        random: Whether the weights are drawn instead of loaded.
        tiny: Whether the model is as small as it can be, and the clip too.
        size: Width and height, or None for the card's first.
        seconds: Length, or None for the card's default.
        steps: Denoising steps, or None for the card's.
        runs: How many clips after the first.
        cap_gib: What the process may take of the device at most; 0 for all of it.
    """

    card: str
    plan: MemoryPlan
    plain: bool = False
    random: bool = True
    tiny: bool = False
    size: tuple[int, int] | None = None
    seconds: float | None = None
    steps: int | None = None
    runs: int = 3
    cap_gib: float = 0.0


@dataclass
class Measured:
    """What came out. Seconds, bytes; ``error`` is why nothing did."""

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
    error: str = ""


class _Watch:
    """Reads clock and memory when stages begin."""

    def __init__(self, device: str) -> None:
        self._device, self._on_gpu = device, device.startswith("cuda")
        self.stage: Stage | None = None
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.reserved = self.used = 0
        self._since = time.perf_counter()
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
        self.stage, self._since = stage, now


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
    done.steps, done.tokens = request.num_inference_steps, card.shape.tokens(request.shape)
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
        began = time.perf_counter()
        sha, frames = hashlib.sha256(), 0
        for chunk in maker.clip(request, watch.report):
            sha.update(np.ascontiguousarray(chunk).tobytes())
            frames += len(chunk)
        watch.turn(None)
        seconds = time.perf_counter() - began
        if frames != request.shape.frames:
            done.error = f"made {frames} frames instead of {request.shape.frames}"
        hashes.append(sha.hexdigest())
        if number == 0:
            done.cold_s = seconds
        else:
            done.warm_s.append(seconds)
            for stage, took in watch.seconds.items():
                done.stage_s.setdefault(stage, []).append(took)
        done.peak_reserved = max(done.peak_reserved, watch.reserved)
        done.peak_device = max(done.peak_device, watch.used)
        done.stage_peak = {k: max(done.stage_peak.get(k, 0), v) for k, v in watch.peaks.items()} or done.stage_peak
    done.peak_allocated = max(done.stage_peak.values(), default=0)
    done.repeats, done.frames_sha256 = len(set(hashes)) == 1, hashes[0]
    done.flops_per_step = maker.flops(request)


class _Ours:
    """A clip by our own stages."""

    def __init__(self, task: Task, card: ModelCard) -> None:
        family = family_of(card)
        if task.random:
            pipe = _random_pipe(task, card)
            self.pipeline: Any = family(Host(pipe, card, task.plan), card)  # pyright: ignore[reportCallIssue]
        else:
            self.pipeline = family.load(card, weights_folder(card), task.plan)

    def clip(self, request: GenerationRequest, report: Any) -> Iterator[Frames]:
        return engine.generate(self.pipeline, request, report).chunks

    def flops(self, request: GenerationRequest) -> float:
        return _counted(self.pipeline._host.pipe, lambda: self._first_step(request))

    def _first_step(self, request: GenerationRequest) -> None:
        def stop(progress: Progress) -> None:
            if progress.stage is Stage.DENOISE and progress.step == 1:
                raise _Enough

        engine.generate(self.pipeline, request, stop)

    def close(self) -> None:
        self.pipeline.close()


class _Plain:
    """A clip by one call of diffusers, offloaded as diffusers does it."""

    def __init__(self, task: Task, card: ModelCard) -> None:
        if task.random:
            self.pipe: Any = _random_pipe(task, card)
        else:
            dtype = getattr(torch, task.plan.dtype)
            self.pipe = diffusers.DiffusionPipeline.from_pretrained(weights_folder(card), dtype=dtype)
        match task.plan.offload:
            case Offload.NONE:
                self.pipe.to(task.plan.device)
            case Offload.MODEL:
                self.pipe.enable_model_cpu_offload(device=task.plan.device)
            case _:
                self.pipe.enable_group_offload(
                    onload_device=torch.device(task.plan.device), offload_type="block_level", num_blocks_per_group=1,
                    use_stream=task.plan.device.startswith("cuda"),
                )  # fmt: skip
        if task.plan.tiled:
            self.pipe.vae.enable_tiling()
        self.pipe.set_progress_bar_config(disable=True)

    def clip(self, request: GenerationRequest, report: Any) -> Iterator[Frames]:
        report(Progress(Stage.DENOISE, 0, 1))
        shape = request.shape
        pictures = {c.frame: Image.open(c.path).resize((shape.width, shape.height)) for c in request.conditions}
        said: dict[str, Any] = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "height": shape.height,
            "width": shape.width,
            "num_frames": shape.frames,
            "frames": shape.frames,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale,
            "frame_rate": float(shape.fps),
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            "output_type": "np",
            "image": pictures.get(0),
            "last_image": pictures.get(shape.frames - 1),
        }
        takes = inspect.signature(type(self.pipe).__call__).parameters
        made = self.pipe(**{name: value for name, value in said.items() if name in takes and value is not None})
        yield (np.asarray(made.frames[0]) * 255).round().astype(np.uint8)

    def flops(self, request: GenerationRequest) -> float:
        del request
        return 0.0

    def close(self) -> None:
        del self.pipe


class _Enough(Exception):
    """One step is all that is counted."""


@contextmanager
def _maker(task: Task, card: ModelCard) -> Iterator[Any]:
    made = (_Plain if task.plain else _Ours)(task, card)
    yield made
    made.close()


def _random_pipe(task: Task, card: ModelCard) -> Any:
    dtypes = {"default": getattr(torch, task.plan.dtype)}
    if task.plan.dtype != "float32":
        dtypes |= {name: getattr(torch, dtype) for name, dtype in card.dtypes.items()}
    where = task.plan.device if task.plan.offload is Offload.NONE else "cpu"
    return random_weights.build(task.card, dtypes=dtypes, device=where, tiny=task.tiny)


def _counted(pipe: Any, run: Any) -> float:
    """Return the floating point operations of the denoisers while something runs, as PyTorch counts them."""
    counter, counts = FlopCounterMode(display=False), [0.0]

    def begin(*_: object) -> None:
        counter.__enter__()

    def end(*_: object) -> None:
        counter.__exit__(None, None, None)
        # Entering anew forgets what was counted before.
        counts.append(float(counter.get_total_flops()))

    denoisers = [part for name, part in pipe.components.items() if name.startswith("transformer") and part is not None]
    hooks = [part.register_forward_pre_hook(begin) for part in denoisers]
    hooks += [part.register_forward_hook(end) for part in denoisers]
    try:
        run()
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counts)


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
