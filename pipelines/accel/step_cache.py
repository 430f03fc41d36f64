"""Steps that are hardly different from the last take its result for most of their blocks. Faster, and lossy.

The first block is always computed. If what it adds differs from what it added at the last step by less than a share,
what all other blocks added then is taken again (diffusers' FirstBlockCache).
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from diffusers import FirstBlockCacheConfig

_log = logging.getLogger(__name__)


def enable(part: Any, threshold: float) -> bool:
    """Let a denoiser reuse its blocks' results; False if its blocks are of a kind that cannot.

    Args:
        part: A transformer of diffusers.
        threshold: Share of change below which a step counts as the same; 0.05 is careful, 0.2 is bold.
    """
    try:
        part.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    except (AttributeError, ValueError) as error:
        # Kinds of blocks that nobody has registered, and models without any such thing.
        _log.warning("step_cache_unavailable kind=%s reason=%s", type(part).__name__, error)
        return False
    return True


def disable(part: Any) -> None:
    """Let a denoiser compute every step again."""
    if getattr(part, "is_cache_enabled", False):
        part.disable_cache()


@contextmanager
def stream(part: Any, name: str) -> Generator[None]:
    """Name the calls inside the block: each stream of a loop is compared with itself. Pipelines do so themselves."""
    if getattr(part, "is_cache_enabled", False):
        with part.cache_context(name):
            yield
    else:
        yield
