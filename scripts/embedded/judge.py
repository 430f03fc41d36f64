"""What a clip shows, told from its pixels alone. No learned part, so that it cannot share the model's errors.

Works on drawn clips, on reconstructions and on generated ones alike; ``scripts/evaluate_embedded.py`` prints its
score on drawn clips beside every other score.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scripts.embedded.scenes import (
    CAMERAS,
    ENVIRONMENTS,
    GROUND_RGB,
    LIGHTINGS,
    MOTIONS,
    NIGHT_GROUND,
    SHAPES,
    SUBJECT_RGB,
    shape_distance,
)

SLOT_ORDER = ("shape", "colour", "motion", "environment", "camera", "lighting")
NIGHT_LUMA = 0.57
# Saturation (chroma over the largest of R, G, B) lies between the most saturated ground (0.39 by day, 0.57 by night)
# and the palest subject (0.76); chroma (largest minus smallest) tells both from dark pixels of no clear hue.
SATURATION = {"day": 0.58, "night": 0.67}
CHROMA = 0.22
GROUND_SHADES, SKY_SHADES = (0.855, 1.145), (0.92, 1.06)
TEMPLATE = 41


def judge(clips: Tensor) -> Tensor:
    """Return slot indices ``(batch, 6)`` in the order of ``scenes.SLOTS`` for ``(batch, 3, f, h, w)`` in [0, 1].

    A subject that cannot be found gives -1 for shape, colour and motion.
    """
    return torch.tensor([_judge_one(clip) for clip in clips])


def _judge_one(clip: Tensor) -> list[int]:
    lighting, environment = _surroundings(clip)
    mask = _subject(clip, LIGHTINGS[lighting])
    seen = mask.flatten(1).sum(1) > 12
    if seen.float().mean() < 0.5:
        return [-1, -1, -1, environment, _camera(clip, mask), lighting]
    path = _path(mask)
    return [
        _shape(mask, path),
        _colour(clip, mask),
        _motion(path[seen], seen, clip.shape[-2:]),
        environment,
        _camera(clip, mask),
        lighting,
    ]


def _surroundings(clip: Tensor) -> tuple[int, int]:
    """Read lighting and environment from the ground's lower corners and the sky's upper ones."""
    height, width = clip.shape[-2:]
    rows, columns = height // 6, width // 5
    ground = torch.cat([clip[..., -rows:, :columns], clip[..., -rows:, -columns:]], dim=-1).flatten(1)
    sky = torch.cat([clip[..., :rows, :columns], clip[..., :rows, -columns:]], dim=-1).flatten(1)
    ground, sky = ground.median(1).values, sky.median(1).values
    night = (ground.mean() + sky.mean()) / 2 < NIGHT_LUMA
    palette = GROUND_RGB * 0.90 * (NIGHT_GROUND if night else 1)
    sky_palette = (GROUND_RGB * 0.35 + 0.65) * 0.97 * (NIGHT_GROUND if night else 1)
    # Stripes shade the ground by a seventh either way, clouds the sky by less: it is the tint that counts.
    distance = _tint_distance(palette, ground, GROUND_SHADES) + _tint_distance(sky_palette, sky, SKY_SHADES)
    return int(night), int(distance.argmin())


def _tint_distance(palette: Tensor, colour: Tensor, shades: tuple[float, float]) -> Tensor:
    """Return how far ``colour`` is from every colour of ``palette``, each as bright as it may be here."""
    shade = ((palette @ colour) / palette.pow(2).sum(1)).clamp(*shades)
    return (shade[:, None] * palette - colour).pow(2).sum(1)


def _subject(clip: Tensor, lighting: str) -> Tensor:
    """Return the subject's mask ``(f, h, w)``: what is more colourful than any ground, without its specks."""
    chroma = clip.amax(0) - clip.amin(0)
    vivid = (chroma > SATURATION[lighting] * clip.amax(0)) & (chroma > CHROMA)
    neighbours = torch.nn.functional.avg_pool2d(vivid[None].float(), 3, 1, 1)[0]
    return neighbours > 0.5


def _path(mask: Tensor) -> Tensor:
    """Return the mask's centroid per frame, ``(f, 2)`` as (y, x); of empty frames, the frame's middle."""
    weight = mask.float()
    area = weight.flatten(1).sum(1).clamp(min=1)
    y = (weight.sum(2) @ (torch.arange(mask.shape[1]) + 0.5)) / area
    x = (weight.sum(1) @ (torch.arange(mask.shape[2]) + 0.5)) / area
    return torch.stack([y, x], dim=1)


def _colour(clip: Tensor, mask: Tensor) -> int:
    colour = clip[:, mask].median(1).values
    palette = SUBJECT_RGB / SUBJECT_RGB.amax(1, keepdim=True)
    return int((palette - colour / colour.amax()).pow(2).sum(1).argmin())


def _motion(path: Tensor, seen: Tensor, size: tuple[int, int]) -> int:
    """Split the path into a straight line and the rest, both relative to the frame and to four seconds."""
    time = torch.arange(len(seen))[seen].float()
    time = time - time.mean()
    relative = path / torch.tensor([float(s) for s in size])
    centred = relative - relative.mean(0)
    slope = (time[:, None] * centred).sum(0) / time.pow(2).sum()
    dy, dx = (slope * 32).tolist()
    swing_y, swing_x = (centred - time[:, None] * slope).std(0).tolist()
    if swing_y > 0.045 and swing_y > 0.1 * abs(dy):
        turns = swing_x > 0.035
        return MOTIONS.index("circle" if turns else "bounce")
    if max(abs(dy), abs(dx)) < 0.12:
        return MOTIONS.index("still")
    if abs(dx) * size[1] > abs(dy) * size[0]:
        return MOTIONS.index("right" if dx > 0 else "left")
    return MOTIONS.index("down" if dy > 0 else "up")


def _camera(clip: Tensor, mask: Tensor) -> int:
    """Growth of the subject tells zoom; otherwise the background's sideways shift tells the pan."""
    area = mask.flatten(1).sum(1).float()
    spread = mask.any(1).sum(1).float()
    growth = max(_growth(area), _growth(spread) ** 2)
    if growth > 1.45:
        return CAMERAS.index("zoom in")
    shift = _background_shift(clip, mask) / clip.shape[-1]
    if abs(shift) < 0.10:
        return CAMERAS.index("static")
    # The picture moves against the camera.
    return CAMERAS.index("pan left" if shift > 0 else "pan right")


def _growth(values: Tensor) -> float:
    return float(values[-5:].median() / values[:5].median().clamp(min=1))


def _background_shift(clip: Tensor, mask: Tensor, gap: int = 4, reach: int = 12) -> float:
    """Return how far the background moves to the right in 32 frames, in pixels."""
    grey = clip.mean(0)
    valid = ~torch.nn.functional.max_pool2d(mask[None].float(), 7, 1, 3)[0].bool()
    total, count = 0.0, 0
    for start in range(0, grey.shape[0] - gap, gap):
        first, second = grey[start], grey[start + gap]
        both = (valid[start], valid[start + gap])
        costs = []
        for move in range(-reach, reach + 1):
            a = slice(max(0, -move), first.shape[1] - max(0, move))
            b = slice(max(0, move), first.shape[1] - max(0, -move))
            usable = both[0][:, a] & both[1][:, b]
            error = (first[:, a] - second[:, b]).pow(2)
            costs.append((error * usable).sum() / usable.sum().clamp(min=1))
        total += float(torch.stack(costs).argmin()) - reach
        count += 1
    return total / max(count, 1) * 32 / gap


def _shape(mask: Tensor, path: Tensor) -> int:
    """Bring the masks of all frames to one place and area, average them, and find the shape that overlaps most."""
    whole = _whole(mask)
    if not whole.any():
        return -1
    masks, centres = mask[whole].float(), path[whole]
    radius = (masks.flatten(1).sum(1) / torch.pi).sqrt()
    axis = torch.linspace(-1.8, 1.8, TEMPLATE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    height, width = mask.shape[1:]
    at_y = (centres[:, 0, None, None] + radius[:, None, None] * y) / height * 2 - 1
    at_x = (centres[:, 1, None, None] + radius[:, None, None] * x) / width * 2 - 1
    seen = torch.nn.functional.grid_sample(masks[:, None], torch.stack([at_x, at_y], -1), align_corners=False)
    mean = seen.mean((0, 1))
    scores = []
    for name in SHAPES:
        area, centre = _template(name)
        scale = (area / torch.pi) ** 0.5
        inside = (shape_distance(name, y * scale + centre, x * scale) < 0).float()
        scores.append(torch.minimum(inside, mean).sum() / torch.maximum(inside, mean).sum())
    return int(torch.stack(scores).argmax())


def _whole(mask: Tensor) -> Tensor:
    """Tell in which frames ``(f,)`` the subject is large enough to have a shape and not cut by the frame's edge."""
    edge = mask[:, 0].any(1) | mask[:, -1].any(1) | mask[:, :, 0].any(1) | mask[:, :, -1].any(1)
    return ~edge & (mask.flatten(1).sum(1) >= 40)


def _template(name: str) -> tuple[float, float]:
    """Return a unit shape's area and the height of its centroid."""
    axis = torch.linspace(-1.5, 1.5, 301)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = shape_distance(name, y, x) < 0
    return float(inside.sum()) * 0.01**2, float(y[inside].mean())


def score(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """Return the share of clips judged right per slot; ``direction`` counts left, right, up, down and still only."""
    right = (found == wanted).float()
    result = {slot: float(right[:, i].mean()) for i, slot in enumerate(SLOT_ORDER)}
    directed = wanted[:, 2] <= MOTIONS.index("still")
    result["direction"] = float(right[directed, 2].mean())
    result["camera_balanced"] = float(
        torch.stack([right[wanted[:, 4] == i, 4].mean() for i in wanted[:, 4].unique()]).mean()
    )
    return result


def confusion(found: Tensor, wanted: Tensor, slot: str) -> str:
    """Return one line per wanted value with what was found instead."""
    names = {"shape": SHAPES, "motion": MOTIONS, "environment": ENVIRONMENTS, "camera": CAMERAS}[slot]
    column = SLOT_ORDER.index(slot)
    lines = []
    for value, name in enumerate(names):
        chosen = found[wanted[:, column] == value, column]
        counts = ", ".join(f"{names[v] if v >= 0 else 'none'} {(chosen == v).sum()}" for v in chosen.unique())
        lines.append(f"  {name}: {counts}")
    return "\n".join(lines)
