"""Hosts of pipelines that have their prompt read by Qwen2.5-VL and show it no pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Qwen2Tokenizer

from pipelines.accel.host import Host
from pipelines.card import ModelCard
from pipelines.plan import MemoryPlan


def read_by_qwen(kind: Any, card: ModelCard, weights: Path, plan: MemoryPlan) -> Host[Any]:
    """Load a pipeline of a kind with its plain tokenizer.

    The processor around it, which the checkpoint names, cannot do without a reader of videos.
    """
    host = Host.load(kind, card, weights, plan, tokenizer=None)
    tokenizer = Qwen2Tokenizer.from_pretrained(weights / "tokenizer", local_files_only=True)
    host.pipe.register_modules(tokenizer=tokenizer)
    return host
