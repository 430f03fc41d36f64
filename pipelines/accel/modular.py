"""Modular pipelines of diffusers on a host: made and loaded part by part, and run block by block."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import transformers
from diffusers.modular_pipelines.modular_pipeline import PipelineState

from pipelines.snapshot import INDEX, made_by

Reader = Callable[[Path, Any], Any]
"""Makes a part of its folder in a checkpoint, for numbers of a dtype."""


def hosted(kind: type[Any], workflow: str, readers: Mapping[str, Reader] | None = None) -> type[Any]:
    """Return a modular pipeline that is made as others are: from its parts, or by ``from_pretrained``.

    Args:
        kind: The pipeline of diffusers.
        workflow: Of those that its blocks know; says which parts there are.
        readers: For parts that are not made by the class that the checkpoint's index names.
    """
    blocks = getattr(diffusers, kind.default_blocks_name)().get_workflow(workflow)
    names = [spec.name for spec in blocks.expected_components if spec.default_creation_method == "from_pretrained"]

    class Hosted(kind):
        _optional_components: tuple[str, ...] = ()

        def __init__(self, **parts: Any) -> None:
            super().__init__(blocks=blocks)
            self.update_components(**parts)

        @classmethod
        def from_pretrained(cls, weights: Path, *, dtype: Mapping[str, Any], **how: Any) -> Any:
            """Load what is not given; ``how`` holds parts, and what loading a model is told beside its dtype."""
            index = json.loads((weights / INDEX).read_text(encoding="utf-8"))
            parts = {name: how.pop(name) for name in names if name in how}
            for name in names:
                if name not in parts:
                    folder, numbers = weights / name, dtype.get(name, dtype["default"])
                    own = (readers or {}).get(name)
                    parts[name] = own(folder, numbers) if own else _part(folder, index.get(name), numbers, how)
            configs = {spec.name: index[spec.name] for spec in blocks.expected_configs if spec.name in index}
            return cls(**parts, **configs)

        def maybe_free_model_hooks(self) -> None:
            """Forget what a step cache has kept, as pipelines of one piece do."""
            for part in self.components.values():
                if hasattr(part, "_reset_stateful_cache"):
                    part._reset_stateful_cache()

    # Whoever loads denoisers one by one asks which of them the pipeline takes.
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("self", *names)]
    made: Any = Hosted
    made.__init__.__signature__ = inspect.Signature(parameters)
    made.__name__ = kind.__name__
    return made


def _part(folder: Path, entry: object, dtype: Any, how: Mapping[str, Any]) -> Any:
    """Load one part by the class that a checkpoint's index names, of one of the two libraries."""
    maker = made_by(entry)
    if maker is None:
        raise KeyError(f"{folder.name} is in no index")
    home: Any = {"diffusers": diffusers, "transformers": transformers}[maker[0]]
    made: Any = getattr(home, maker[1])
    weighty = hasattr(made, "dtype")
    return made.from_pretrained(folder, **how, **({"dtype": dtype} if weighty else {}))


def run(pipe: Any, values: Mapping[str, Any], *blocks: Any) -> dict[str, Any]:
    """Run blocks one after the other and return all that they know in the end: what they were told and what they made.

    Args:
        pipe: The pipeline with the blocks' parts.
        values: What they are told, by name.
        blocks: Of the same pipeline.
    """
    state = PipelineState()
    for name, value in values.items():
        state.set(name, value)
    # They write down every exception with where it came from, a clip that is cancelled too.
    log = logging.getLogger("diffusers.modular_pipelines.modular_pipeline")
    before, log.level = log.level, logging.CRITICAL
    try:
        for block in blocks:
            pipe, state = block(pipe, state)
    finally:
        log.level = before
    return dict(state.values)


def watch(loop: Any, on_step: Callable[[int, Any], None], kept: Mapping[str, Any] | None = None) -> None:
    """Have a loop of blocks tell of its steps, and go on where an earlier attempt at it stopped.

    Args:
        loop: A fresh one; it is changed for good.
        on_step: Called with the number of steps done and the loop's state; may raise, which ends the loop.
        kept: Values of the state after ``step`` steps, as an earlier ``on_step`` saw them; None begins at the
            beginning. The step that made them is told of once more.
    """
    kind: Any = type(loop)
    done = kept["step"] if kept else 0

    class Watched(kind):
        def loop_step(self, components: Any, state: Any, **where: Any) -> tuple[Any, Any]:
            number = where["i"] + 1
            if number < done:
                return components, state
            if kept and number == done:
                # What a step leaves behind for itself alone need not have been kept.
                for name in self.intermediate_output_names:
                    setattr(state, name, kept.get(name))
            else:
                components, state = super().loop_step(components, state, **where)
            on_step(number, state)
            return components, state

    loop.__class__ = Watched
    loop.set_progress_bar_config(disable=True)
