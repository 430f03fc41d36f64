"""Models at their true size with random weights: what they take does not depend on what they know.

``scripts/architectures`` holds, card by card, the published configuration of every part, as the models' ``config.json``
and diffusers' conversion scripts have it. Nothing is downloaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
import yaml
from accelerate import init_empty_weights
from diffusers.pipelines.ltx import modeling_latent_upsampler
from torch import nn

from pipelines.accel.modular import hosted
from pipelines.accel.refining import upsampling
from pipelines.weights import UPSAMPLER
from tests.pipelines.families import vocabularies

FOLDER = Path(__file__).resolve().parent / "architectures"


def known() -> list[str]:
    """Return the ids of the cards that can be built."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def architecture(card: str, *, tiny: bool = False) -> dict[str, Any]:
    """Return ``pipeline``, its ``workflow`` if it is a modular one, ``options`` and ``parts`` of a card's model.

    Args:
        card: Its id.
        tiny: With every part as small as it can be, for machines that only check that all of it runs.

    Raises:
        KeyError: Nothing is written down about it.
    """
    if card not in known():
        raise KeyError(f"{card}: there is no configuration of it in {FOLDER.name}; known are {', '.join(known())}")
    read = _read(card)
    parts, options = read["parts"], read.get("options", {})
    if tiny:
        smaller = read.get("tiny", {})
        options |= smaller.pop("options", {})
        for name, sizes in smaller.items():
            parts[name]["config"] |= sizes
    for part in parts.values():
        if "like" in part:
            part |= {key: parts[part["like"]][key] for key in ("class", "config")}
    for name in read.get("without", ()):
        del parts[name]
    return {"pipeline": read["pipeline"], "workflow": read.get("workflow"), "options": options, "parts": parts}


def _read(card: str) -> dict[str, Any]:
    own = yaml.safe_load((FOLDER / f"{card}.yaml").read_text())
    base = own.pop("extends", None)
    return own if base is None else _merged(_read(base), own)


def _merged(base: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(base[key], own[key]) for key in base.keys() & own.keys() if isinstance(own[key], dict)}
    return {**base, **own, **both}


def parameters(card: str, *, wide: bool = False) -> dict[str, int]:
    """Count the parameters of every part that has any, without any memory.

    Args:
        card: Its id.
        wide: Only those that diffusers keeps in float32; transformers does so beside float16 alone.
    """
    counts: dict[str, int] = {}
    for name, part in architecture(card)["parts"].items():
        made = _empty(part)
        if isinstance(made, nn.Module):
            theirs = getattr(made, "_keep_in_fp32_modules", None) if isinstance(made, diffusers.ModelMixin) else None
            kept: set[str] = set(theirs or ())
            found = made.named_parameters()
            counts[name] = sum(p.numel() for path, p in found if not wide or kept & set(path.split(".")))
    return counts


def lora_parameters(card: str) -> dict[str, int]:
    """Count the parameters of a card's own LoRAs, by the names under which their files are borrowed.

    They change every linear layer in some folders of a part, and perhaps its bias.
    """
    counts: dict[str, int] = {}
    for name, lora in _read(card).get("loras", {}).items():
        part = architecture(card)["parts"][lora["part"]]
        layers = [
            layer
            for path, layer in _empty(part).named_modules()
            if isinstance(layer, nn.Linear) and path.startswith(tuple(lora["inside"]))
        ]
        counts[name] = sum(lora["rank"] * (layer.in_features + layer.out_features) for layer in layers)
        counts[name] += sum(layer.out_features for layer in layers) if lora.get("biases") else 0
    return counts


def stored_parts(card: str) -> dict[str, tuple[int, int]]:
    """Return the size of the file and the largest layer of each part that a card has from a GGUF file.

    Layers around the blocks compute when the tokens need little.
    """
    parts = architecture(card)["parts"]
    found: dict[str, tuple[int, int]] = {}
    for name, size in _read(card).get("files", {}).items():
        inside = re.compile(r"(transformer_)?blocks\.")
        modules = _empty(parts[name]).named_modules()
        layers = [it.weight.numel() for path, it in modules if isinstance(it, nn.Linear) and inside.match(path)]
        found[name] = size, max(layers)
    return found


def build(card: str, *, dtypes: Mapping[str, torch.dtype], device: str, tiny: bool = False) -> Any:
    """Return a pipeline of diffusers with random weights.

    Args:
        card: The card's id.
        dtypes: What the parts compute in; ``default`` is for those that are not named.
        device: Where the weights are made.
        tiny: See ``architecture``.
    """
    found = architecture(card, tiny=tiny)
    parts: dict[str, Any] = {}
    for name, part in found["parts"].items():
        made = _empty(part)
        if isinstance(made, nn.Module):
            _fill(made, dtypes.get(name, dtypes["default"]), device)
            made.eval().requires_grad_(requires_grad=False)
        parts[name] = made
    kind: Any = getattr(diffusers, found["pipeline"])
    if found["workflow"]:
        kind = hosted(kind, found["workflow"])
    if UPSAMPLER in parts:
        kind = upsampling(kind)
    missing = {name: None for name in kind._optional_components if name not in parts}
    return kind(**parts, **missing, **found["options"])


def _empty(part: Mapping[str, Any]) -> Any:
    """Return a part whose parameters have no memory yet; buffers, which are computed, have."""
    if "vocabulary" in part:
        return getattr(vocabularies, part["vocabulary"])()
    name, config = part["class"], part["config"]
    kind: Any = next(
        found
        for home in (diffusers, modeling_latent_upsampler, diffusers.pipelines.ltx2, transformers)
        if (found := getattr(home, name, None))
    )
    with init_empty_weights(include_buffers=False):
        by_config = getattr(kind, "config_class", None)
        made = kind(**config) if by_config is None else kind(by_config(**config))
    if hasattr(made, "tie_weights"):
        # Parameters without memory forget whom they are shared with.
        made.tie_weights()
    return made


def _fill(model: nn.Module, dtype: torch.dtype, device: str) -> None:
    """Draw weights that keep the spread of what passes through; norms keep it as it is.

    A GPU draws them also for the CPU, which would take minutes for billions.
    """
    drawn_on = "cuda" if torch.cuda.is_available() else device
    generator = torch.Generator(drawn_on).manual_seed(0)
    seen: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            new = seen.get(id(old))
            if new is None:
                tensor = torch.empty(old.shape, dtype=dtype, device=drawn_on)
                if old.ndim > 1 and min(old.shape[:2]) > 1:
                    tensor.normal_(0, 1 / math.sqrt(old[0].numel()), generator=generator)
                else:
                    tensor.fill_(0.0 if name == "bias" else 1.0)
                new = seen[id(old)] = nn.Parameter(tensor.to(device), requires_grad=False)
            setattr(module, name, new)
        for name, buffer in list(module.named_buffers(recurse=False)):
            kept = buffer.to(device)
            setattr(module, name, kept)
    if drawn_on != device:
        torch.cuda.empty_cache()
