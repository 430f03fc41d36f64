"""Denoisers from GGUF files of families that no card offers them for, by homereel add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, LTXVideoTransformer3DModel

from pipelines.accel.single_file import load_single
from pipelines.errors import WeightsMissing
from tests.pipelines.families import test_ltx_published
from tests.pipelines.families.published import ltx_gguf


def denoiser(kind: Any = LTXVideoTransformer3DModel, **more: Any) -> Any:
    small = {name: value for name, value in test_ltx_published.transformer().config.items() if not name.startswith("_")}
    return kind(**small | more)


def test_what_diffusers_reads_keeps_the_bits_of_its_layers(tmp_path: Path) -> None:
    part = denoiser()
    part.save_config(tmp_path / "transformer")
    file = ltx_gguf(part, tmp_path / "own.gguf")
    loaded = load_single(LTXVideoTransformer3DModel, file, tmp_path / "transformer", torch.float32)
    weight = loaded.transformer_blocks[0].ff.net[2].weight
    assert (weight.dtype, weight.numel()) == (torch.uint8, 32 * 128 // 32 * 34)
    stored, meant = loaded.state_dict(), part.state_dict()
    assert stored.keys() == meant.keys()
    assert all(torch.equal(value, meant[name]) for name, value in stored.items() if value.dtype == torch.float32)


def test_what_it_does_not_read_is_said_to_be_so(tmp_path: Path) -> None:
    part = denoiser()
    part.save_config(tmp_path / "transformer")
    file = ltx_gguf(part, tmp_path / "own.gguf")
    with pytest.raises(WeightsMissing, match="reads no such file of this model"):
        load_single(CogVideoXTransformer3DModel, file, tmp_path / "transformer", torch.float32)
