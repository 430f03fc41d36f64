"""What `scripts/bench_server.py` compares the server with: the same clip with diffusers alone, no server around it.

Makes one clip per line of standard input and prints the seconds that each took: python plain_diffusers.py MODEL DEVICE
PROMPT SEED
"""

from __future__ import annotations

import os
import sys
import time

import diffusers
import torch
from diffusers import LTXConditionPipeline

from pipelines.card import Wish
from pipelines.families.ltx import Options
from pipelines.registry import load_registry, weights_folder


def main(model: str, device: str, prompt: str, seed: str) -> None:
    diffusers.utils.logging.set_verbosity_error()
    if device == "cpu":
        os.nice(5)  # as the worker does
    card = load_registry().find(model)
    request, options = card.resolve(Wish(prompt, seed=int(seed))).request, Options.model_validate(card.options)
    steps, shape = request.num_inference_steps, request.shape
    linear = [1000 * (1 - step / steps) for step in range(steps)]
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    pipe = LTXConditionPipeline.from_pretrained(weights_folder(card), dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        pipe(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            height=shape.height,
            width=shape.width,
            num_frames=shape.frames,
            frame_rate=shape.fps,
            num_inference_steps=steps,
            timesteps=linear if options.schedule == "linear" else None,
            guidance_scale=request.guidance_scale,
            image_cond_noise_scale=options.image_cond_noise_scale,
            max_sequence_length=options.max_sequence_length,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type="np",
        )
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
