"""Trees of tensors and plain values as bytes: what a loop remembers between its steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

Frozen = Callable[[], bytes]


def freeze(tree: Any) -> Frozen:
    """Copy a tree to the CPU; what is returned makes bytes of the copy, in any thread and at any time.

    Args:
        tree: Mappings, lists and tuples of tensors, numbers, texts and None.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _taken_apart(tree, tensors)

    def bytes_of_it() -> bytes:
        return save(tensors, metadata={"tree": json.dumps(skeleton)})

    return bytes_of_it


def thaw(content: bytes, device: str) -> Any:
    """Return the tree again. What was on a device comes to ``device``, what was on the CPU stays there."""
    # safetensors reads headers from files only; its own loader of bytes drops them.
    length = int.from_bytes(content[:8], "little")
    skeleton = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["tree"])
    return _put_together(skeleton, load(content), device)


def _taken_apart(tree: Any, tensors: dict[str, Tensor]) -> Any:
    match tree:
        case Tensor():
            name = str(len(tensors))
            tensors[name] = tree.detach().to("cpu", copy=True).contiguous()
            return {"tensor": name, "on": tree.device.type}
        case Mapping():
            return {"mapping": {key: _taken_apart(value, tensors) for key, value in tree.items()}}
        case list() | tuple():
            kind = "list" if isinstance(tree, list) else "tuple"
            return {kind: [_taken_apart(value, tensors) for value in tree]}
        case _:
            return {"value": tree}


def _put_together(skeleton: Any, tensors: Mapping[str, Tensor], device: str) -> Any:
    match skeleton:
        case {"tensor": name, "on": where}:
            return tensors[name].to("cpu" if where == "cpu" else device)
        case {"mapping": values}:
            return {key: _put_together(value, tensors, device) for key, value in values.items()}
        case {"list": values}:
            return [_put_together(value, tensors, device) for value in values]
        case {"tuple": values}:
            return tuple(_put_together(value, tensors, device) for value in values)
        case _:
            return skeleton["value"]
