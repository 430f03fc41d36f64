"""Who makes the clips that are measured: our own stages, or diffusers alone, with the same weights."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines import engine
from pipelines.accel.host import Host, quiet
from pipelines.card import ModelCard
from pipelines.images import fitted
from pipelines.plan import MemoryPlan, Offload, Quantisation
from pipelines.registry import family_of, weights_folder
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
        frames: File of the frames that others of the group are compared with. Whoever loses nothing and finds it
            missing writes it.
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
    frames: str = ""

    @property
    def is_lossy(self) -> bool:
        """Whether it takes less than the model's own numbers, all of them, at every step."""
        plan = self.plan
        rounds = plan.quantisation is not Quantisation.NONE or plan.attention.startswith("sage")
        return rounds or plan.step_cache > 0


class Ours:
    """A clip by our own stages."""

    def __init__(self, task: Task, card: ModelCard) -> None:
        family = family_of(card)
        if task.random:
            pipe = _random_pipe(task, card)
            card = _without_refining(card)
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


# What cards say in words of their own, as LTX-2's pipeline calls it; what sound is not told, it takes as by default.
_CALLED = {
    "stg_blocks": ("spatio_temporal_guidance_blocks",),
    "cross_timestep": ("use_cross_timestep",),
    "stg_scale": ("stg_scale", "audio_stg_scale"),
    "modality_scale": ("modality_scale", "audio_modality_scale"),
    "guidance_rescale": ("guidance_rescale", "audio_guidance_rescale"),
}


def has_plain(card: ModelCard) -> bool:
    """Tell whether one call of diffusers makes a model's clips: none does by blocks alone, or by solvers of ours."""
    return "solver" not in card.options and "Modular" not in card.weights.layout


class Plain:
    """A clip by one call of diffusers, offloaded as diffusers does it."""

    def __init__(self, task: Task, card: ModelCard) -> None:
        quiet()
        logging.getLogger("diffusers").setLevel(logging.ERROR)
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
        self._options: dict[str, Any] = {}
        for name, value in card.options.items():
            self._options |= dict.fromkeys(_CALLED.get(name, (name,)), value)
        if task.tiny and hasattr(self.pipe, "target_size"):
            # It makes pictures of its own size, whatever it is given.
            self.pipe.target_size = card.shape.sizes[0].height

    def clip(self, request: GenerationRequest, report: Any) -> Iterator[Frames]:
        report(Progress(Stage.DENOISE, 0, 1))
        shape = request.shape
        pictures = {c.frame: fitted(c, shape.width, shape.height) for c in request.conditions}
        said: dict[str, Any] = {
            # What a card says of its checkpoint is what its publisher's example passes.
            **self._options,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "height": shape.height,
            "width": shape.width,
            "num_frames": shape.frames,
            "frames": shape.frames,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale,
            "guidance_scale_2": request.guidance_scale_2 if self.pipe.components.get("transformer_2") else None,
            # Sizes are asked for as they are, and not as the nearest of a list.
            "use_resolution_binning": False,
            "frame_rate": float(shape.fps),
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            "output_type": "np",
            "image": pictures.get(0),
            "last_image": pictures.get(shape.frames - 1),
        }
        if "flow_shift" in self.pipe.scheduler.config and request.flow_shift != 1:
            self.pipe.scheduler = type(self.pipe.scheduler).from_config(
                self.pipe.scheduler.config, flow_shift=request.flow_shift
            )
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


def _without_refining(card: ModelCard) -> ModelCard:
    """Return a card without the LoRAs of its second stage: they are files, which weights by chance have none of."""
    loras = tuple(lora for lora in card.weights.loras if not lora.refines)
    return card.model_copy(update={"weights": card.weights.model_copy(update={"loras": loras})})


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
