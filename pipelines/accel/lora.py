"""LoRAs: those of a request are in the denoisers for one clip and leave no trace, a model's own stay in for good."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipelines.accel.single_file import is_quantised
from pipelines.card import ModelCard
from pipelines.errors import UnsupportedOption, WeightsMissing
from pipelines.holdings import borrowed
from pipelines.types import Lora

# Trained for one of two experts; the files say for which by their names, all in this way.
_LOW_NOISE = ("low_noise", "low-noise", "lownoise")


def add_own(kind: Any, card: ModelCard, name: str, part: Any) -> None:
    """Add a card's LoRAs to a denoiser for good.

    They are put into its weights, which costs no step any time, before anything else is done to them: what is stored
    in a byte, or comes and goes, cannot be added to. Nor can weights that come quantised, so that there they stay
    beside.

    Args:
        kind: The pipeline, which knows how LoRAs of its models are written down.
        card: The model's card.
        name: The part's name.
        part: As it was loaded.

    Raises:
        WeightsMissing: A LoRA is not on this machine, cannot be read, or is one of another model.
    """
    stays = is_quantised(part)
    for lora in card.weights.loras:
        if lora.part != name or lora.refines:
            continue
        file = borrowed(card, lora.borrowed)
        try:
            layers = kind.lora_state_dict(
                str(file.parent), weight_name=file.name, local_files_only=True, use_safetensors=True
            )
            with _several():
                part.load_lora_adapter(
                    _weighted(layers, lora.weight, part.dtype) if stays else layers, adapter_name=lora.borrowed
                )
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise WeightsMissing(f"The LoRA {file.name} of {card.id} cannot be used: {reason}") from error
        if lora.borrowed not in getattr(part, "peft_config", {}):
            raise WeightsMissing(f"The LoRA {file.name} of {card.id} cannot be used: it changes nothing of {name}.")
        if stays:
            part.set_adapters(list(part.peft_config), 1.0)
        else:
            part.fuse_lora(lora_scale=lora.weight, adapter_names=[lora.borrowed])
            part.unload_lora()


@contextmanager
def _several() -> Generator[None]:
    """Let LoRAs be put beside others without a warning: they are told apart by their names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        yield


def _weighted(layers: Mapping[str, Tensor], weight: float, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a LoRA that says by itself how strongly it counts, in what the model computes in."""
    return {
        name: (value * weight if ".lora_B." in name else value).to(dtype) if value.is_floating_point() else value
        for name, value in layers.items()
    }


def refining(card: ModelCard) -> list[Lora]:
    """Return what a card has in its denoiser for the second stage of a clip, and not for the first.

    Raises:
        WeightsMissing: It is not on this machine.
    """
    wanted = [lora for lora in card.weights.loras if lora.refines]
    return [Lora(lora.borrowed, borrowed(card, lora.borrowed), lora.weight) for lora in wanted]


@contextmanager
def loras(pipe: Any, wanted: Sequence[Lora]) -> Generator[None]:
    """Have LoRAs in the denoisers of a pipeline while the block runs.

    Raises:
        UnsupportedOption: One of them does not fit the model.
    """
    if not wanted:
        yield
        return
    weights = {f"request_{index}": lora.weight for index, lora in enumerate(wanted)}
    own = {name: list(part.peft_config) for name, part in _adapted(pipe).items()}
    try:
        for name, lora in zip(weights, wanted, strict=True):
            _load(pipe, name, lora)
        for part in _adapted(pipe).values():
            there = list(part.peft_config)
            part.set_adapters(there, [weights.get(name, 1.0) for name in there])
        yield
    finally:
        # Takes the adapted layers out again, so that what follows is equal to the bit to what was before.
        if not own:
            pipe.unload_lora_weights()
        for name, part in _adapted(pipe).items():
            if name in own:
                part.delete_adapters([adapter for adapter in part.peft_config if adapter in weights])
                part.set_adapters(own[name], 1.0)
            else:
                part.unload_lora()


def _adapted(pipe: Any) -> dict[str, Any]:
    """Return the parts of a pipeline that have LoRAs."""
    return {name: part for name, part in pipe.components.items() if getattr(part, "peft_config", None)}


def _load(pipe: Any, name: str, lora: Lora) -> None:
    for_second = any(word in lora.path.name.lower() for word in _LOW_NOISE)
    where = {"load_into_transformer_2": True} if for_second and getattr(pipe, "transformer_2", None) is not None else {}
    try:
        with _several():
            pipe.load_lora_weights(str(lora.path.parent), weight_name=lora.path.name, adapter_name=name, **where)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UnsupportedOption(f"The LoRA {lora.name} does not fit this model: {reason}", param="lora") from error
    if not any(name in found for found in pipe.get_list_adapters().values()):
        # Names that nothing answers to are passed over without an error.
        raise UnsupportedOption(
            f"The LoRA {lora.name} does not fit this model: it changes nothing of it.", param="lora"
        )
