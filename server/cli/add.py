"""``homereel add``: a folder of this machine, or denoisers in GGUF files, become a model like one that there is."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import snapshot
from pipelines.card import ModelCard
from pipelines.needs import is_denoiser
from pipelines.weights import UPSAMPLER
from server.cli.models import keep, registry
from server.cli.outcome import Failure, Outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}
# What some files have beside the denoiser: a part of its own here, which comes with the rest of the model.
_BESIDE = "embeddings_connector"


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "path",
        type=Path,
        nargs="+",
        help="folder with model_index.json, as save_pretrained writes it; or a GGUF file with a denoiser, or one for "
        "each of two, that for high noise first",
    )
    parser.add_argument("--name", help="id of the new model; the folder's name if not given")
    parser.add_argument("--like", help="id of the model whose card it takes over; found out if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: Namespace) -> int:
    """Write the card."""
    paths: list[Path] = [path.absolute() for path in options.path]
    is_packed = all(path.suffix == snapshot.GGUF for path in paths)
    if not is_packed:
        _check(paths)
    cards = registry().cards
    name = options.name or re.sub(r"[^a-z0-9._-]+", "-", _stem(paths[0]).lower()).strip("-.")
    if name in cards:
        raise Failure(f"there is a model {name!r} already; choose another with --name", Outcome.MISUSED)
    if options.like is not None and options.like not in cards:
        raise Failure(f"there is no model {options.like!r}", Outcome.MISUSED)
    if is_packed and options.like is None:
        raise Failure("say --like: of which model the rest is, such as the text encoder", Outcome.MISUSED)
    like = cards[options.like] if options.like else _alike(paths[0], cards)
    now = datetime.now(UTC)
    raw = _raw(like) if is_packed else _in_folder(like, paths[0], now)
    raw |= {
        "id": name,
        "name": name,
        "description": f"{paths[0].name}, added by hand; made like {like.id}.",
        "created": int(now.timestamp()),
        "weights": _packed(raw["weights"], like, paths) if is_packed else raw["weights"],
        "licence": {"id": "unknown", "url": str(like.licence.url), "note": "that of the weights that were added"},
    }
    try:
        card = ModelCard.model_validate(raw)
    except ValueError as error:
        raise Failure(f"{name!r} cannot be the id of a model: {error}", Outcome.MISUSED) from error
    keep(card)
    said = f"{card.id} is a model now, like {like.id}; a running server knows it after its next start"
    print(json.dumps({"model": card.id, "like": like.id}) if options.json else said)
    return Outcome.DONE


def _stem(path: Path) -> str:
    return path.stem if path.suffix == snapshot.GGUF else path.name


def _raw(card: ModelCard) -> dict[str, Any]:
    return card.model_dump(mode="json", exclude_defaults=True)


def _in_folder(like: ModelCard, folder: Path, now: datetime) -> dict[str, Any]:
    """Return a card's content for a checkpoint in a folder: its place, and how large its parts are."""
    is_refined = (folder / UPSAMPLER).is_dir() and not any(lora.refines for lora in like.weights.loras)
    raw = _raw(like if is_refined else like.in_one_stage())
    weights: dict[str, Any] = {key: value for key, value in raw["weights"].items() if key not in ("repo", "package")}
    borrowed: dict[str, Any] = weights.get("borrowed", {})
    if UPSAMPLER in borrowed:
        borrowed[UPSAMPLER] = {"path": str(folder / UPSAMPLER)}
    for name, part in weights.get("components", {}).items():
        part["params"] = _parameters(folder / name) or part["params"]
    return {**raw, "weights": weights | {"folder": str(folder), "revision": now.strftime("%Y-%m-%dT%H:%M:%SZ")}}


def _packed(weights: Mapping[str, Any], like: ModelCard, files: list[Path]) -> dict[str, Any]:
    """Return the weights of a card whose denoisers are in GGUF files, and all else where it was."""
    names = sorted(name for name in like.weights.components if is_denoiser(name))
    if len(files) != len(names):
        raise Failure(f"{like.id} has {len(names)} denoisers; give a file for each", Outcome.MISUSED)
    components, borrowed = dict(weights["components"]), dict(weights.get("borrowed", {}))
    for name, file in zip(names, files, strict=True):
        if flaw := snapshot.flaw_of(file):
            raise Failure(f"{file.name} {flaw}", Outcome.MISUSED)
        every = snapshot.weights_in_gguf(file)
        sizes = [size for tensor, size in every.items() if _BESIDE not in tensor]
        params = like.weights.components[name].params
        if abs(sum(sizes) - params) > params / 50:
            told = f"{file.name} has {sum(sizes) / 1e9:.2f} billion weights; the {name} of {like.id} has"
            raise Failure(f"{told} {params / 1e9:.2f} billion", Outcome.MISUSED)
        stored = {"bits": round(8 * file.stat().st_size / sum(every.values()), 3), "layer": max(sizes)}
        components[name] = {**components[name], "stored": stored}
        borrowed[name] = {"path": str(file)}
    return {**weights, "components": components, "borrowed": borrowed}


def _check(paths: list[Path]) -> None:
    folder = paths[0]
    if len(paths) > 1:
        raise Failure("give one folder, or GGUF files", Outcome.MISUSED)
    lacking = snapshot.missing(folder)
    if lacking:
        raise Failure(f"{folder} is no whole checkpoint: it lacks {', '.join(lacking)}", Outcome.MISUSED)
    unsafe = snapshot.programs(folder)
    if unsafe:
        raise Failure(
            f"{folder} holds what would have to be run, which Homereel never does: {', '.join(unsafe[:3])}. It loads "
            "safetensors, by the classes of diffusers and transformers.",
            Outcome.MISUSED,
        )
    flaws = [
        f"{file.relative_to(folder)} {flaw}"
        for file in sorted(folder.rglob("*.safetensors"))
        if (flaw := snapshot.flaw_of(file))
    ]
    if flaws:
        raise Failure(f"{folder} is damaged: {'; '.join(flaws[:3])}", Outcome.MISUSED)


def _alike(folder: Path, cards: Mapping[str, ModelCard]) -> ModelCard:
    """Return the card whose checkpoint has the same class and about as many parameters."""
    layout = json.loads((folder / snapshot.INDEX).read_text()).get("_class_name")
    alike = [
        card
        for card in cards.values()
        if card.weights.layout == layout and "transformer" in card.weights.components and _is_whole(card)
    ]
    if not alike:
        known = sorted({card.weights.layout for card in cards.values() if card.weights.layout})
        raise Failure(
            f"{layout} is made by no model here; say --like, or use one of: {', '.join(known)}", Outcome.MISUSED
        )
    count = _parameters(folder / "transformer")
    return min(alike, key=lambda card: abs(card.weights.components["transformer"].params - count))


def _is_whole(card: ModelCard) -> bool:
    """Tell whether a checkpoint like a card's can do without what the card borrows: that would be put on top of it."""
    return not card.in_one_stage().weights.borrowed


def _parameters(part: Path) -> int:
    """Count the parameters of a part from the headers of its safetensors."""
    total = 0
    for path in part.glob("*.safetensors"):
        tensors, _ = snapshot.header_of(path)
        for tensor in tensors.values():
            begin, end = tensor["data_offsets"]
            total += (end - begin) // _BYTES.get(tensor["dtype"], 2)
    return total
