"""``homereel add``: a checkpoint in a folder of this machine becomes a model, by the card of one that is like it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import snapshot
from pipelines.card import ModelCard
from server.cli.models import keep, registry
from server.cli.outcome import Failure, Outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", type=Path, help="folder with model_index.json, as save_pretrained writes it")
    parser.add_argument("--name", help="id of the new model; the folder's name if not given")
    parser.add_argument("--like", help="id of the model whose card it takes over; found out if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: Namespace) -> int:
    """Write the card."""
    folder: Path = options.path.absolute()
    _check(folder)
    cards = registry().cards
    name = options.name or re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-.")
    if name in cards:
        raise Failure(f"there is a model {name!r} already; choose another with --name", Outcome.MISUSED)
    if options.like is not None and options.like not in cards:
        raise Failure(f"there is no model {options.like!r}", Outcome.MISUSED)
    like = cards[options.like] if options.like else _alike(folder, cards)
    now = datetime.now(UTC)
    raw: dict[str, Any] = like.model_dump(mode="json", exclude_defaults=True)
    weights: dict[str, Any] = raw["weights"]
    kept = {key: value for key, value in weights.items() if key not in ("repo", "package")}
    raw |= {
        "id": name,
        "name": name,
        "description": f"{folder.name}, added by hand; made like {like.id}.",
        "created": int(now.timestamp()),
        "weights": kept | {"folder": str(folder), "revision": now.strftime("%Y-%m-%dT%H:%M:%SZ")},
        "licence": {"id": "unknown", "url": str(like.licence.url), "note": "that of the folder's weights"},
    }
    try:
        card = ModelCard.model_validate(raw)
    except ValueError as error:
        raise Failure(f"{name!r} cannot be the id of a model: {error}", Outcome.MISUSED) from error
    keep(card)
    said = f"{card.id} is a model now, like {like.id}; a running server knows it after its next start"
    print(json.dumps({"model": card.id, "like": like.id}) if options.json else said)
    return Outcome.DONE


def _check(folder: Path) -> None:
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
        # A checkpoint is whole by itself; what a card borrows would be put on top of it.
        if card.weights.layout == layout and "transformer" in card.weights.components and not card.weights.borrowed
    ]
    if not alike:
        known = sorted({card.weights.layout for card in cards.values() if card.weights.layout})
        raise Failure(
            f"{layout} is made by no model here; say --like, or use one of: {', '.join(known)}", Outcome.MISUSED
        )
    count = _parameters(folder / "transformer")
    return min(alike, key=lambda card: abs(card.weights.components["transformer"].params - count))


def _parameters(part: Path) -> int:
    """Count the parameters of a part from the headers of its safetensors."""
    total = 0
    for path in part.glob("*.safetensors"):
        tensors, _ = snapshot.header_of(path)
        for tensor in tensors.values():
            begin, end = tensor["data_offsets"]
            total += (end - begin) // _BYTES.get(tensor["dtype"], 2)
    return total
