"""The models that a worker holds: loaded by a plan, kept for the next job, given up when others need the room."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pipelines import registry
from pipelines.base import VideoPipeline
from pipelines.card import ModelCard
from pipelines.errors import OutOfMemory
from pipelines.fitting import fit, largest_that_fits, lower, rungs
from pipelines.holdings import weights_missing
from pipelines.loading import Note, listening
from pipelines.needs import Demand, Held, held, typical_request
from pipelines.plan import Device, MemoryPlan
from pipelines.types import DType, GenerationRequest, Stage
from server.devices import find_devices
from server.loaded import LoadedModel
from server.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model on the device, and how it runs there."""

    card: ModelCard
    pipeline: VideoPipeline[Any, Any]
    plan: MemoryPlan


def find(settings: Settings, name: str) -> ModelCard:
    """Return the card of a model whose weights are here, be it one that ships or one that was added.

    Raises:
        UnknownModel: There is none.
        WeightsMissing: There is one, but its weights are not on this machine.
    """
    return registry.load_registry(own=settings.models_dir, accepted=settings.accept_licences).find(name)


@dataclass(frozen=True)
class Source:
    """Where models come from, and what there is to run them on; tests bring their own."""

    find: Callable[[str], ModelCard]
    load: Callable[[ModelCard, MemoryPlan], VideoPipeline[Any, Any]] = registry.load_pipeline
    probe: Callable[[str], Device] = registry.probe
    attention_for: Callable[[str, DType, str | None], str] = registry.attention_for
    release: Callable[[str], None] = registry.release
    measure: Callable[[str], tuple[int, int]] = registry.measure


class Residents:
    """The loaded models of one device, the one that was used last at the end.

    Everything but ``announced``, ``measured`` and ``names`` belongs to one thread.
    """

    def __init__(
        self, device: str, settings: Settings, source: Source | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._name = device
        self._settings = settings
        self._source = source or Source(partial(find, settings))
        self._now = now
        # Replaced as a whole, so that another thread can read it at any time.
        self._models: dict[str, Loaded] = {}
        self._used_at: dict[str, float] = {}
        self._busy: str | None = None
        self._attention: dict[DType, str] = {}
        self._probed: Device | None = None
        # What has proven to need more than was predicted is made by these plans from then on.
        self._lowered: dict[tuple[str, Demand], MemoryPlan] = {}

    def names(self) -> frozenset[str]:
        """Return the ids of the cards whose models are loaded."""
        return frozenset(self._models)

    @property
    def latest(self) -> str | None:
        """Id of the card that was used last, if its model is still loaded."""
        return next(reversed(self._models), None)

    def announced(self) -> tuple[LoadedModel, ...]:
        """Return what there is to say of the loaded models, the one that was used last first. Any thread may ask."""
        return tuple(
            LoadedModel(
                name, model.plan.describe(), held(model.card, model.plan).device, self._unload_at(name, self._busy)
            )
            for name, model in reversed(self._models.copy().items())
        )

    def measured(self) -> tuple[int, int] | None:
        """Return free and total bytes of a GPU's memory; None before the first plan. Any thread may ask."""
        return None if self._probed is None else self._source.measure(self._name)

    def loads(self, card_id: str, request: GenerationRequest) -> bool:
        """Tell whether ``bring`` will load anything.

        Raises:
            DoesNotFit: The model is loaded, but no plan lets it make this.
        """
        model = self._able(card_id, request)
        return model is None or self._plan(model.card, request).placement != model.plan.placement

    def bring(self, card_id: str, request: GenerationRequest, note: Note) -> Loaded:
        """Return the model, ready to make a request; it is busy until ``rest``.

        Args:
            card_id: Id or alias of its card.
            request: What it is to make, which decides the plan.
            note: Called with the share that is loaded. What it raises ends the loading.

        Raises:
            DoesNotFit: No plan fits the device.
            PipelineError: The model is not known, its weights are not here or cannot be loaded.
        """
        there = self._able(card_id, request)
        card = there.card if there else self._source.find(card_id)
        if not _has_stages(card, request):
            raise weights_missing(card)
        plan = self._plan(card, request)
        if there is None or there.plan.placement != plan.placement:
            self.drop(card.id)
            self._make_room(card, plan)
            pipeline = self._load(card, plan, note)
        else:
            self._make_room(card, plan)
            pipeline = there.pipeline
            pipeline.adopt(plan)
        self._busy = card.id
        self._used_at[card.id] = self._now()
        others = {name: model for name, model in self._models.items() if name != card.id}
        loaded = Loaded(card, pipeline, plan)
        self._models = {**others, card.id: loaded}
        return loaded

    def descend(self, card_id: str, request: GenerationRequest, stage: Stage) -> str:
        """Give all models up after memory ran out in a stage, and make such clips by the next lower plan from now on.

        Whatever the error holds of the device must be free before this is called.

        Returns:
            What was changed, as a sentence.

        Raises:
            OutOfMemory: There is no lower plan; the message says what was tried, and what should need less.
        """
        card = self._models[card_id].card if card_id in self._models else self._source.find(card_id)
        self.clear()
        demand, device = Demand.of(request), self._device()
        plan = self._plan(card, request)
        # Mux takes the frames from the decoder as they are made.
        stage = Stage.DECODE if stage is Stage.MUX else stage
        following = lower(rungs(card, demand, device), plan, stage, device)
        if following is None:
            raise OutOfMemory(self._at_the_bottom(card, demand, plan, stage))
        self._lowered[card.id, demand] = following
        _log.warning(
            "plan_lowered card=%s stage=%s from=%r to=%r", card.id, stage, plan.describe(), following.describe()
        )
        return (
            f"the device's memory ran out in {stage} with {plan.describe()}; made again from there with "
            f"{following.describe()}"
        )

    def preload(self, name: str) -> None:
        """Load a model for its usual clip before anybody asks for it. Raises as ``bring`` does."""
        card = self._source.find(name)
        self.bring(card.id, typical_request(card), lambda _share: None)
        self.rest()

    def rest(self) -> None:
        """Note that the busy model is done; from now on it may be given up."""
        if self._busy is not None:
            self._used_at[self._busy] = self._now()
        self._busy = None
        self.expire()

    def expire(self) -> None:
        """Give up the models that have not been used for ``keep_alive`` seconds."""
        for name in self._models:
            unload_at = self._unload_at(name, self._busy)
            if unload_at is not None and unload_at <= self._now():
                self.drop(name)

    def drop(self, name: str) -> None:
        """Give a model up, if it is loaded."""
        if name not in self._models:
            return
        model = self._models[name]
        self._models = {other: kept for other, kept in self._models.items() if other != name}
        model.pipeline.close()
        # Nothing may hold it any more when memory is given back.
        del model
        self._source.release(self._name)
        _log.info("model_unloaded card=%s", name)

    def clear(self) -> None:
        """Give all models up."""
        self._busy = None
        for name in self._models:
            self.drop(name)

    def _able(self, card_id: str, request: GenerationRequest) -> Loaded | None:
        """Return the model if it is loaded; but not if that was before the rest was fetched, and that is needed."""
        model = self._models.get(card_id)
        return model if model and _has_stages(model.card, request) else None

    def _load(self, card: ModelCard, plan: MemoryPlan, note: Note) -> VideoPipeline[Any, Any]:
        began = time.monotonic()
        _log.info("model_loading card=%s plan=%r peak_gib=%.1f", card.id, plan.describe(), plan.peak / 2**30)
        with listening(note):
            pipeline = self._source.load(card, plan)
        _log.info("model_loaded card=%s load_s=%.2f", card.id, time.monotonic() - began)
        return pipeline

    def _plan(self, card: ModelCard, request: GenerationRequest) -> MemoryPlan:
        demand = Demand.of(request)
        plan = self._lowered.get((card.id, demand))
        if plan is None:
            plan = fit(
                card, demand.shape, self._device(), guided=demand.guided, pictures=demand.pictures, clips=demand.clips
            )
        if self._settings.compile:
            plan = replace(plan, compiled=True)
        plan = replace(plan, step_cache=request.step_cache)
        return replace(plan, attention=self._kernel(plan)) if self._name.startswith("cuda") else plan

    def _at_the_bottom(self, card: ModelCard, demand: Demand, plan: MemoryPlan, stage: Stage) -> str:
        """Return a sentence on a plan that ran out of memory and below which there is none."""
        peak = plan.peak_bytes.get(stage, plan.peak)
        said = (
            f"{card.id} ran out of memory in {stage} at {demand.shape.size} with {demand.shape.frames} frames, though "
            f"{plan.describe()} should need {peak / 2**30:.1f} GiB of {self._name}, and nothing needs less."
        )
        # The device has less than it said: what would fit has to need less than this did.
        would = largest_that_fits(card, demand, replace(self._device(), memory_bytes=plan.peak - 1))
        if would is None:
            return said
        return f"{said} {would.size} with {would.frames} frames ({would.seconds:.1f} s) should fit."

    def _kernel(self, plan: MemoryPlan) -> str:
        if plan.dtype not in self._attention:
            kernel = self._source.attention_for(plan.device, plan.dtype, self._settings.attention)
            _log.info("attention_chosen kernel=%s device=%s dtype=%s", kernel, plan.device, plan.dtype)
            self._attention[plan.dtype] = kernel
        return self._attention[plan.dtype]

    def _device(self) -> Device:
        """Return what there is to run on, found out before anything was loaded."""
        if self._probed is None:
            found = self._source.probe(self._name)
            # Every worker of this machine plans with its share of what all have.
            sharing = len(self._settings.devices or find_devices()) if found.is_gpu else 1
            self._probed = replace(found, ram_bytes=found.ram_bytes // sharing, disk_bytes=found.disk_bytes // sharing)
        return self._probed

    def _make_room(self, card: ModelCard, plan: MemoryPlan) -> None:
        """Give up the models that were used longest ago until the plan fits beside those that are left."""
        for name in tuple(self._models):
            if self._fits_beside(self._others(card.id), plan):
                return
            if name != card.id:
                self.drop(name)

    def _others(self, card_id: str) -> Held:
        each = [held(model.card, model.plan) for name, model in self._models.items() if name != card_id]
        return Held(sum(other.device for other in each), sum(other.ram for other in each))

    def _fits_beside(self, others: Held, plan: MemoryPlan) -> bool:
        device = self._device()
        return plan.peak + others.device <= device.memory_bytes and plan.ram_bytes + others.ram <= device.ram_bytes

    def _unload_at(self, name: str, busy: str | None) -> float | None:
        keep_s = self._settings.keep_alive
        used_at = self._used_at.get(name)
        return None if keep_s < 0 or name == busy or used_at is None else used_at + keep_s


def _has_stages(card: ModelCard, request: GenerationRequest) -> bool:
    """Tell whether a card, which may be here in one stage, has those that a request is made in."""
    return not request.refine_steps or card.shape.has_two_stages
