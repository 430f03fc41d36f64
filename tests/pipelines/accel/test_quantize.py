"""Weights of one byte: what they keep of the clip. int8 runs where its optional package is."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from pipelines.errors import UnsupportedOption
from pipelines.plan import MemoryPlan, Quantisation
from tests.pipelines.families.test_wan import TestText as Tiny

needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="the optional package torchao is not here")


@pytest.mark.parametrize("kind", [Quantisation.FP8, pytest.param(Quantisation.INT8, marks=needs_torchao)])
def test_quantised_weights_stay_close_and_take_a_byte_each(kind: Quantisation, tmp_path: Path) -> None:
    torch.manual_seed(0)
    Tiny.build(tmp_path)
    tiny = Tiny()
    request = tiny.wish(tmp_path)
    exact, rough = (Tiny.load(tmp_path, MemoryPlan("cpu", quantisation=q)) for q in (Quantisation.NONE, kind))
    expected, made = tiny.latents(exact, request), tiny.latents(rough, request)
    assert 0 < (made - expected).abs().mean() / expected.abs().mean() < 0.1
    weight = tiny.denoiser(rough).get_parameter("blocks.0.ffn.net.0.proj.weight")
    assert weight.element_size() == 1 or weight.dtype == torch.float32  # torchao's tensors name what they stand for


@pytest.mark.skipif(find_spec("torchao") is not None, reason="the optional package torchao is here")
def test_int8_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    torch.manual_seed(0)
    Tiny.build(tmp_path)
    with pytest.raises(UnsupportedOption, match="torchao"):
        Tiny.load(tmp_path, MemoryPlan("cpu", quantisation=Quantisation.INT8))
