"""Blocks of a denoiser as compiled code: steps are faster, and the first of a size wait for the compiler."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch._dynamo import config
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

_log = logging.getLogger(__name__)

_BACKEND = "inductor"
# Kinds of clips that a process may compile for: sizes, guided or not, with or without a step cache.
_VARIANTS = 64


class Compilation:
    """Compiles each kind of block when one is first called: all blocks of a kind share the code.

    Hooks that were put on a block, or will be, stay around it and out of the code. With LoRAs in them blocks run as
    they are: every LoRA, and every weight of it, would be compiled anew for its one clip.

    Attributes:
        works: Whether blocks have been taken, and none of them was too much for the compiler.
    """

    def __init__(self) -> None:
        self.works = False
        self._compiled: dict[type[Any], Callable[..., Any]] = {}

    def take(self, part: Any) -> None:
        """Have a transformer of diffusers call compiled blocks. Call it before hooks are put on them."""
        names = getattr(part, "_repeated_blocks", None) or ()
        blocks = [module for module in part.modules() if type(module).__name__ in names]
        if not blocks:
            _log.warning("compile_unavailable kind=%s reason='nobody has named its blocks'", type(part).__name__)
            return
        self.works = True
        # Code is compiled for weights that learn, or do not; taking a LoRA out leaves them as these.
        part.requires_grad_(requires_grad=False)
        config.recompile_limit = max(config.recompile_limit, _VARIANTS)
        for block in blocks:
            block.forward = partial(self._call, part, block)

    def _call(self, part: Any, block: Any, *args: Any, **kwargs: Any) -> Any:
        kind = type(block)
        # Whoever counts operations sees none within compiled code.
        if not self.works or getattr(part, "peft_config", None) or is_in_torch_dispatch_mode():
            return kind.forward(block, *args, **kwargs)
        if kind not in self._compiled:
            self._compiled[kind] = torch.compile(kind.forward, fullgraph=True, backend=_BACKEND)
        try:
            return self._compiled[kind](block, *args, **kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            # No compiler on this machine, or code that it cannot take. A video is worth more than its speed.
            self.works = False
            cause = getattr(error, "inner_exception", error)
            reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:200]
            _log.warning("compile_failed kind=%s reason=%r; blocks run as they are", kind.__name__, reason)
            return kind.forward(block, *args, **kwargs)
