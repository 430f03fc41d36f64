"""What two prompts say alike cancels out; what they say otherwise is done, as far as it may be."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipelines.accel.flow_edit import Course, Noise, Velocities, edited
from pipelines.errors import Cancelled

Snapshot = Callable[[], Callable[[], bytes]]
CLIP = torch.linspace(-1, 1, 24).view(1, 6, 4)


def towards(target: Tensor, state: Tensor, sigma: float) -> Tensor:
    """The velocity of a model that knows where every clip ends: noise minus target."""
    return (state - target) / sigma


def made(
    wanted: Tensor, unwanted: Tensor, *, guidance_scale: float = 1.0, seed: int = 1, sigmas: tuple[float, ...] = ()
) -> Tensor:
    def predict(edit: Tensor, clip: Tensor, sigma: float) -> Velocities:
        return Velocities(towards(wanted, edit, sigma), towards(unwanted, edit, sigma), towards(CLIP, clip, sigma))

    levels = sigmas or (0.8, 0.6, 0.4, 0.2, 0.0)
    generator = torch.Generator().manual_seed(seed)
    return edited(CLIP, predict, Course(levels, guidance_scale), Noise(generator), lambda *_: None)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0, 9.0])
def test_the_same_words_change_nothing(guidance_scale: float) -> None:
    assert torch.allclose(made(CLIP, CLIP, guidance_scale=guidance_scale), CLIP, atol=1e-5)


def test_other_words_are_done_and_only_where_they_differ() -> None:
    wanted = CLIP.clone()
    wanted[:, :2] += 3
    result = made(wanted, CLIP)
    assert torch.allclose(result, wanted, atol=1e-4)
    # Under guidance, further than the words say; what they do not mention stays.
    beyond = made(wanted, CLIP, guidance_scale=2.0)
    assert (beyond[:, :2] > wanted[:, :2] + 0.5).all()
    assert torch.allclose(beyond[:, 2:], CLIP[:, 2:], atol=1e-5)


def test_the_seed_decides_what_depends_on_noise() -> None:
    def predict(edit: Tensor, clip: Tensor, sigma: float) -> Velocities:
        return Velocities(edit.sin(), edit.cos(), clip.cos())

    def run(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return edited(CLIP, predict, Course((0.9, 0.5, 0.0), 3.0), Noise(generator), lambda *_: None)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_every_step_has_a_noise_of_its_own_that_clip_and_edit_share() -> None:
    noises: list[Tensor] = []

    def predict(edit: Tensor, clip: Tensor, sigma: float) -> Velocities:
        noises.append((clip - (1 - sigma) * CLIP) / sigma)
        # The edit so far is the clip: nothing has moved it yet.
        assert torch.allclose(edit, clip, atol=1e-5)
        return Velocities(clip, clip, clip)

    edited(CLIP, predict, Course((0.9, 0.5, 0.2, 0.0), 3.0), Noise(torch.Generator().manual_seed(1)), lambda *_: None)
    correlations = torch.corrcoef(torch.stack(noises).flatten(1))
    assert (correlations - torch.eye(3)).abs().max() < 0.6


def test_what_noise_brings_along_cancels_out_in_pairs() -> None:
    def predict(edit: Tensor, clip: Tensor, sigma: float) -> Velocities:
        # Where the edit goes has nothing to do with words, and all with the noise.
        return Velocities(edit, edit, torch.zeros_like(clip))

    def run(*, paired: bool) -> Tensor:
        noise = Noise(torch.Generator().manual_seed(1), paired)
        return edited(torch.zeros_like(CLIP), predict, Course((0.5, 0.0), 1.0), noise, lambda *_: None)

    assert run(paired=False).abs().max() > 0.1
    assert run(paired=True).abs().max() < 1e-6


def test_steps_are_counted_and_can_be_the_last() -> None:
    seen: list[int] = []

    def on_step(step: int, edit: Tensor, snapshot: Snapshot) -> None:
        assert edit.shape == CLIP.shape
        seen.append(step)
        if step == 2:
            raise Cancelled("enough")

    def predict(edit: Tensor, clip: Tensor, sigma: float) -> Velocities:
        return Velocities(edit, edit, clip)

    with pytest.raises(Cancelled):
        edited(CLIP, predict, Course((0.9, 0.6, 0.3, 0.0), 3.0), Noise(torch.Generator().manual_seed(1)), on_step)
    assert seen == [1, 2]


@pytest.mark.parametrize("paired", [False, True])
def test_an_edit_goes_on_where_it_stopped_to_the_bit(paired: bool) -> None:
    def predict(edit: Tensor, clip: Tensor, sigma: float) -> Velocities:
        return Velocities(edit.sin(), edit.cos() * sigma, clip.cos())

    def run(on_step: Callable[[int, Tensor, Snapshot], None], state: bytes | None = None) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        course = Course((0.9, 0.6, 0.4, 0.0), 3.0, state)
        # What comes after the edit draws from the same generator.
        return edited(CLIP, predict, course, Noise(generator, paired), on_step), torch.randn(3, generator=generator)

    kept: list[bytes] = []
    whole = run(lambda step, edit, snapshot: kept.append(snapshot()()))
    for done, state in enumerate(kept, start=1):
        again: list[bytes] = []
        resumed = run(lambda step, edit, snapshot, again=again: again.append(snapshot()()), state)
        assert all(map(torch.equal, resumed, whole)), f"after step {done}"
        assert again == kept[done:]
