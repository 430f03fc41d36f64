"""Editing by the difference of two flows: what the new words want otherwise than the old ones, and nothing else.

A clip and its edit share the noise at every step, and it is another at each: what one noise makes of the clip is not
taken for the clip, and a subject's path is kept that the words leave open. The edit moves by the difference between the
velocity of its own noisy state under the new words and the velocity of the clip's under the old ones. Where the words
agree the two cancel out, so the composition and the paths of things stay without inverting anything.
Source: "FlowEdit: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models", https://arxiv.org/abs/2412.08629.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from pipelines.accel.states import Frozen, freeze, thaw


class Velocities(NamedTuple):
    """Where the noisy states are going, each ``(1, tokens, channels)``.

    Attributes:
        wanted: The edit, under the new words.
        unwanted: The edit, under the words to go away from.
        clip: The clip, under its own.
    """

    wanted: Tensor
    unwanted: Tensor
    clip: Tensor


class Noise(NamedTuple):
    """Where the noise comes from.

    Attributes:
        generator: On the CPU.
        paired: Whether every noise is used with its sign turned too, and the mean of both is taken. Twice the work;
            what the noise alone brings along cancels out to first order, and paths are kept that it would turn.
    """

    generator: torch.Generator
    paired: bool = False

    def draw(self, like: Tensor) -> tuple[Tensor, ...]:
        """Return the noises of a step."""
        one = torch.randn(like.shape, generator=self.generator).to(like.device)
        return (one, -one) if self.paired else (one,)


Predict: TypeAlias = Callable[[Tensor, Tensor, float], Velocities]
"""From the noisy edit, the noisy clip and the noise level in (0, 1]."""


class Course(NamedTuple):
    """How an edit goes.

    Attributes:
        sigmas: Noise levels from the first to 0; the first says how far the edit may go.
        guidance_scale: How much further than the words say; 1 goes exactly as far.
        state: What a step's snapshot kept in an earlier attempt, to go on from, bit for bit; None begins.
    """

    sigmas: Sequence[float]
    guidance_scale: float
    state: bytes | None = None


def edited(
    clip: Tensor,
    predict: Predict,
    course: Course,
    noise: Noise,
    on_step: Callable[[int, Tensor, Callable[[], Frozen]], None],
) -> Tensor:
    """Return the edit of a clip.

    Args:
        clip: Clean latents ``(1, tokens, channels)``, float32.
        predict: The model.
        course: How it goes, and from where.
        noise: What clip and edit share, drawn anew at every step.
        on_step: Given the number of steps done, the edit so far, and what copies all that it takes to go on from
            there; may raise.
    """
    edit, done = clip, 0
    if course.state is not None:
        kept = thaw(course.state, str(clip.device))
        edit, done = kept["edit"], kept["step"]
        noise.generator.set_state(kept["generator"])
    for step, (sigma, following) in enumerate(pairwise(course.sigmas), start=1):
        if step <= done:
            continue
        changes: list[Tensor] = []
        for one in noise.draw(clip):
            noisy = clip + sigma * (one - clip)
            velocities = predict(edit + noisy - clip, noisy, sigma)
            change = velocities.unwanted - velocities.clip
            changes.append(change + course.guidance_scale * (velocities.wanted - velocities.unwanted))
        edit = edit + (following - sigma) * (sum(changes[1:], start=changes[0]) / len(changes))
        state = {"step": step, "edit": edit, "generator": noise.generator.get_state()}
        on_step(step, edit, partial(freeze, state))
    return edit
