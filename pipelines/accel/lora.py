"""LoRAs: those of a request are in the denoisers for one clip and leave no trace, a model's own stay in for good."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from pipelines.card import ModelCard
from pipelines.errors import UnsupportedOption, WeightsMissing
from pipelines.holdings import borrowed
from pipelines.types import Lora

# Trained for one of two experts; the files say for which by their names, all in this way.
_LOW_NOISE = ("low_noise", "low-noise", "lownoise")


def fuse_own(kind: Any, card: ModelCard, name: str, part: Any) -> None:
    """Add a card's LoRAs to the weights of a denoiser, which costs no step any time and keeps its layers as they are.

    Before anything else is done to the part: what is stored in a byte, or comes and goes, cannot be added to.

    Args:
        kind: The pipeline, which knows how LoRAs of its models are written down.
        card: The model's card.
        name: The part's name.
        part: As it was loaded.

    Raises:
        WeightsMissing: A LoRA is not on this machine, cannot be read, or is one of another model.
    """
    for lora in card.weights.loras:
        if lora.part != name:
            continue
        file = borrowed(card, lora.borrowed)
        try:
            layers = kind.lora_state_dict(
                str(file.parent), weight_name=file.name, local_files_only=True, use_safetensors=True
            )
            part.load_lora_adapter(layers, adapter_name=lora.borrowed)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise WeightsMissing(f"The LoRA {file.name} of {card.id} cannot be used: {reason}") from error
        if lora.borrowed not in getattr(part, "peft_config", {}):
            raise WeightsMissing(f"The LoRA {file.name} of {card.id} cannot be used: it changes nothing of {name}.")
        part.fuse_lora(lora_scale=lora.weight, adapter_names=[lora.borrowed])
        part.unload_lora()


@contextmanager
def loras(pipe: Any, wanted: Sequence[Lora]) -> Generator[None]:
    """Have LoRAs in the denoisers of a pipeline while the block runs.

    Raises:
        UnsupportedOption: One of them does not fit the model.
    """
    if not wanted:
        yield
        return
    names = [f"request_{index}" for index in range(len(wanted))]
    try:
        for name, lora in zip(names, wanted, strict=True):
            _load(pipe, name, lora)
        pipe.set_adapters(names, [lora.weight for lora in wanted])
        yield
    finally:
        # Takes the adapted layers out again, so that what follows is equal to the bit to what was before.
        pipe.unload_lora_weights()


def _load(pipe: Any, name: str, lora: Lora) -> None:
    for_second = any(word in lora.path.name.lower() for word in _LOW_NOISE)
    where = {"load_into_transformer_2": True} if for_second and getattr(pipe, "transformer_2", None) is not None else {}
    try:
        pipe.load_lora_weights(str(lora.path.parent), weight_name=lora.path.name, adapter_name=name, **where)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UnsupportedOption(f"The LoRA {lora.name} does not fit this model: {reason}", param="lora") from error
    if not any(name in found for found in pipe.get_list_adapters().values()):
        # Names that nothing answers to are passed over without an error.
        raise UnsupportedOption(
            f"The LoRA {lora.name} does not fit this model: it changes nothing of it.", param="lora"
        )
