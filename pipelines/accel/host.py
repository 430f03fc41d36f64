"""A diffusers pipeline on a device: loads it as a plan says, brings its parts where they are needed, measures.

The parts are moved here and not by diffusers' own offloading, which sends the whole denoiser to the device again for
every clip: here it stays until another part needs the room.
"""

from __future__ import annotations

import gc
import inspect
import json
import logging
import shutil
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import diffusers
import torch
import transformers
from torch import nn

from pipelines.accel import step_cache
from pipelines.accel.attention import use_attention
from pipelines.accel.compiling import Compilation
from pipelines.accel.interruption import Interruption
from pipelines.accel.lora import add_own
from pipelines.accel.offload import offload_blocks, stay_on_cpu
from pipelines.accel.quantize import quantize
from pipelines.accel.single_file import is_quantised, load_single
from pipelines.card import ModelCard
from pipelines.errors import OutOfMemory, PipelineError, UnsupportedOption, WeightsMissing
from pipelines.holdings import borrowed
from pipelines.loading import loaded
from pipelines.plan import STREAMED, MemoryPlan, Offload, Quantisation
from pipelines.snapshot import made_by, size_of

P = TypeVar("P", bound=diffusers.DiffusionPipeline)
Q = TypeVar("Q", bound=diffusers.DiffusionPipeline)

_LOCAL = {"local_files_only": True, "use_safetensors": True}
# What goes wrong when a checkpoint lacks a file, or has one that is cut short or of another model.
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError)


class Host(Generic[P]):
    """A loaded pipeline. Its parts are at hand within ``stage``.

    Attributes:
        pipe: The pipeline of diffusers; whatever it computes, it computes on the plan's device.
        plan: How it runs.
        interruption: Where a clip can be stopped inside a part. Denoisers can be after every step.
    """

    def __init__(self, pipe: P, card: ModelCard, plan: MemoryPlan, denoisers: Denoisers | None = None) -> None:
        """Take a pipeline over.

        Args:
            pipe: Its parts are on the CPU.
            card: The model's card.
            plan: How it is to run.
            denoisers: Those of its parts that run as the plan says already.
        """
        self.pipe = _on_device(pipe, plan.device)
        self.card = card
        self.plan = plan
        pipe.set_progress_bar_config(disable=True)
        self._settled = denoisers or Denoisers(plan)
        for name in self._denoisers():
            self._settled.settle(name, getattr(pipe, name))
        self._place()
        self._tile()
        self.interruption = Interruption(plan.device)
        for name, part in self._modules().items():
            if name not in self._denoisers():
                self.interruption.watch(part)

    @classmethod
    def load(cls, kind: type[P], card: ModelCard, weights: Path, plan: MemoryPlan, **instead: object) -> Host[P]:
        """Load a checkpoint in the published layout, from safetensors alone.

        Args:
            kind: The pipeline to load, which need not be the one that the checkpoint names.
            card: The model's card.
            weights: Folder with ``model_index.json``.
            plan: How it is to run.
            instead: Parts that replace those of the checkpoint; None leaves one out, as it does what the card does
                without.

        Raises:
            WeightsMissing: A part of the checkpoint is not there or cannot be read.
            OutOfMemory: The device cannot hold it.
        """
        quiet()
        dtypes = {"default": getattr(torch, plan.dtype)} | {
            name: getattr(torch, dtype) for name, dtype in _own_dtypes(card, plan).items()
        }
        theirs = inspect.signature(kind.__init__).parameters
        instead = {name: None for name in sorted(card.weights.without) if name in theirs} | instead
        try:
            denoisers = Denoisers(plan)
            sizes = _sizes(card, weights)
            done = 0
            for name, part in _denoisers_of(kind, card, weights, dtypes, instead.keys()):
                add_own(kind, card, name, part)
                denoisers.settle(name, part)
                done += sizes.get(name, 0)
                loaded(done / sum(sizes.values()))
            pipe = kind.from_pretrained(
                weights, dtype=dtypes, **_LOCAL, trust_remote_code=False, **denoisers.parts, **instead
            )
            return cls(pipe, card, plan, denoisers)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"{card.id} does not fit on {plan.device}: {error}") from error
        except PipelineError:
            raise
        except _UNREADABLE as error:
            raise WeightsMissing(f"The weights of {card.id} cannot be read: {error}") from error

    def sibling(self, kind: type[Q], **options: object) -> Q:
        """Return another pipeline of the same parts, on the same device; ``options`` are what it takes beside them."""
        theirs = inspect.signature(kind.__init__).parameters
        parts = {name: part for name, part in self.pipe.components.items() if name in theirs}
        made = _on_device(kind(**parts | options), self.plan.device)
        made.set_progress_bar_config(disable=True)
        return made

    @contextmanager
    def stage(self, what: str, *parts: str) -> Generator[torch.device]:
        """Have parts at hand for as long as the block runs, and the device to compute on.

        Args:
            what: What the block does, for the sentence of an error: ``Decoding 832x480``.
            parts: Names of the pipeline's parts; those that it does not have are passed over.

        Raises:
            OutOfMemory: The device is too small.
        """
        try:
            self._bring(parts)
            yield torch.device(self.plan.device)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"{what} does not fit on {self.plan.device}: {error}") from error
        finally:
            # Caches of features are state; a clip that was cancelled must not leave it to the next one.
            self.pipe.maybe_free_model_hooks()

    @property
    def facts(self) -> Mapping[str, str]:
        """What has to be the same for the same seed to give the same frames."""
        plan = self.plan
        said = {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "weights": self.card.weights.versions,
            "dtype": plan.dtype,
            "device": plan.device,
        }
        if plan.device.startswith("cuda"):
            said["device_name"] = torch.cuda.get_device_name(plan.device)
            said["attention"] = plan.attention
        if plan.quantisation is not Quantisation.NONE:
            said["quantisation"] = plan.quantisation.value
        if self._settled.compilation.works:
            said["compiled"] = "yes, except with LoRAs"
        if self._settled.caches_steps:
            said["step_cache"] = f"{plan.step_cache:g}"
        if plan.offload is not Offload.NONE:
            said["offload"] = plan.offload.value
        return said

    def start_measuring(self) -> None:
        """Forget the highest memory so far."""
        if self.plan.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.plan.device)

    @property
    def peak_memory_bytes(self) -> int | None:
        """Highest memory of the device since ``start_measuring``; None where that is the process's own."""
        on_gpu = self.plan.device.startswith("cuda")
        return torch.cuda.max_memory_allocated(self.plan.device) if on_gpu else None

    def adopt(self, plan: MemoryPlan) -> None:
        """Run by another plan of the same placement."""
        self.plan = plan
        self._settled.cache_steps(plan.step_cache)
        self._tile()

    def close(self) -> None:
        """Free the device."""
        self._settled.close()
        del self.pipe
        gc.collect()
        if self.plan.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _denoisers(self) -> list[str]:
        """Return the names of the parts that are run at every step."""
        return [name for name in self._modules() if name.startswith("transformer")]

    def _modules(self) -> dict[str, nn.Module]:
        return {name: part for name, part in self.pipe.components.items() if isinstance(part, nn.Module)}

    def _place(self) -> None:
        """Put every part where it is while nothing runs."""
        plan, denoisers = self.plan, self._denoisers()
        for name, part in self._modules().items():
            if self._stays_on_cpu(name):
                stay_on_cpu(part, plan.device)
            elif plan.offload is Offload.NONE and name not in denoisers:
                part.to(plan.device)
        if plan.offload is Offload.MODEL and len(denoisers) > 1:
            self._take_turns()

    def _tile(self) -> None:
        """Have pictures encoded and decoded tile by tile, or not."""
        for part in self._modules().values():
            # Every autoencoder of diffusers has the methods; those that know no tiles raise.
            if hasattr(part, "use_tiling"):
                getattr(part, "enable_tiling" if self.plan.tiled else "disable_tiling")()

    def _take_turns(self) -> None:
        """Let each of several denoisers come to the device when it is called, in the place of the one before."""
        experts = self._denoisers()

        def come(name: str, *_: object) -> None:
            for other in experts:
                self._modules()[other].to(self.plan.device if other == name else "cpu")

        for name in experts:
            self._modules()[name].register_forward_pre_hook(partial(come, name))

    def _bring(self, wanted: tuple[str, ...]) -> None:
        """Move parts to the device; those that are not needed make room first."""
        if self.plan.offload is Offload.NONE:
            return
        experts = self._denoisers()
        themselves = experts if self.plan.offload is not Offload.MODEL or len(experts) > 1 else []
        moved = {name: part for name, part in self._modules().items() if name not in themselves}
        if not set(wanted) & set(experts) and self.plan.offload is Offload.MODEL:
            moved |= {name: self._modules()[name] for name in experts}
        for name, part in moved.items():
            if name not in wanted:
                part.to("cpu")
        if self.plan.device.startswith("cuda"):
            torch.cuda.empty_cache()
        for name, part in moved.items():
            if name in wanted and not self._stays_on_cpu(name):
                part.to(self.plan.device)

    def _stays_on_cpu(self, name: str) -> bool:
        return self.plan.text_encoder_on_cpu and name.startswith("text_encoder")


class Denoisers:
    """The parts that run at every step, made to run as a plan says.

    They are large: each goes where it is to be before the next one is loaded.

    Attributes:
        parts: By name.
        caches_steps: Whether they take results of earlier steps, which changes what they make.
        compilation: What compiles their blocks, if the plan says so.
    """

    def __init__(self, plan: MemoryPlan) -> None:
        self._plan = plan
        self.parts: dict[str, Any] = {}
        self.caches_steps = False
        self._threshold = plan.step_cache
        self.compilation = Compilation()
        self._folders: list[Path] = []

    def settle(self, name: str, part: Any) -> None:
        """Take a part, unless it has been taken before."""
        if name in self.parts:
            return
        plan = self._plan
        self.parts[name] = part
        if plan.compiled and plan.compilable:
            self.compilation.take(part)
        quantize(part, plan)
        if plan.offload is Offload.DISK and is_quantised(part):
            # What diffusers puts there it takes for other numbers when it comes back.
            raise UnsupportedOption("Weights that come quantised cannot be kept on the disk.")
        use_attention(part, plan.attention)
        if self._threshold:
            self.caches_steps = step_cache.enable(part, self._threshold)
        if plan.offload is Offload.NONE:
            part.to(plan.device)
        elif plan.offload in STREAMED and (folder := offload_blocks(part, plan)) is not None:
            self._folders.append(folder)

    def cache_steps(self, threshold: float) -> None:
        """Have them take results of earlier steps that differ by less than a share from now on; 0 ends it."""
        if threshold == self._threshold:
            return
        self._threshold, self.caches_steps = threshold, False
        for part in self.parts.values():
            step_cache.disable(part)
            if threshold:
                self.caches_steps = step_cache.enable(part, threshold)

    def close(self) -> None:
        """Remove what is on the disk."""
        self.parts.clear()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


def _denoisers_of(
    kind: type[Any], card: ModelCard, weights: Path, dtypes: Mapping[str, torch.dtype], instead: Collection[str]
) -> Iterator[tuple[str, Any]]:
    """Load a checkpoint's denoisers one by one, those that the pipeline takes and that nothing stands in for."""
    index = json.loads((weights / "model_index.json").read_text(encoding="utf-8"))
    wanted = inspect.signature(kind.__init__).parameters.keys() - set(instead)
    for name, entry in index.items():
        maker = made_by(entry)
        if not name.startswith("transformer") or name not in wanted or maker is None or maker[0] != "diffusers":
            continue
        part: Any = getattr(diffusers, maker[1])
        dtype = dtypes.get(name, dtypes["default"])
        if name not in card.weights.borrowed:
            yield name, part.from_pretrained(weights, subfolder=name, dtype=dtype, **_LOCAL)
        elif (place := borrowed(card, name)).is_dir():
            yield name, part.from_pretrained(place, dtype=dtype, **_LOCAL)
        else:
            yield name, load_single(part, place, weights / name, dtype)


def _sizes(card: ModelCard, weights: Path) -> dict[str, int]:
    """Return the bytes of each part's weights."""
    elsewhere = card.weights.borrowed.keys() & card.weights.components.keys()
    sizes = {name: size_of(borrowed(card, name)) for name in elsewhere}
    for file in weights.glob("*/*.safetensors"):
        if file.parent.name not in elsewhere:
            sizes[file.parent.name] = sizes.get(file.parent.name, 0) + file.stat().st_size
    return sizes


def quiet() -> None:
    """Keep loading bars out of a worker's log."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    # The optional packages that it names would change what the tokenizers do, or are for other models.
    logging.getLogger("diffusers.pipelines.pipeline_utils").setLevel(logging.ERROR)


def _own_dtypes(card: ModelCard, plan: MemoryPlan) -> Mapping[str, str]:
    """Return the parts that compute in more than the plan's numbers."""
    return {} if plan.dtype == "float32" else card.dtypes


def _on_device(pipe: P, device: str) -> P:
    """Let a pipeline say that it computes on ``device``, wherever the first of its parts happens to be."""
    kind = type(pipe)
    placed = type(kind.__name__, (kind,), {"_execution_device": property(lambda _: torch.device(device))})
    pipe.__class__ = placed
    return pipe
