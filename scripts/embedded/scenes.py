"""The scenes that the embedded model is trained on: slots, and how a clip of them is drawn.

A scene is one value per slot (shape, colour, motion, environment, camera, lighting). Everything that
is not a slot (size, start, hills, hue jitter) is drawn at random and *independently of the slots*, so that
a slot can only be learned from the words. In particular the start of the subject does not depend on where it
goes: otherwise the first frame would give the direction away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import torch

SHAPES = ("ball", "square", "triangle", "star")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
MOTIONS = ("left", "right", "up", "down", "still", "bounce", "circle")
ENVIRONMENTS = ("green", "blue", "sand", "white", "grey", "pink")
CAMERAS = ("static", "pan left", "pan right", "zoom in")
LIGHTINGS = ("day", "night")

SLOTS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "motion": MOTIONS,
    "environment": ENVIRONMENTS,
    "camera": CAMERAS,
    "lighting": LIGHTINGS,
}

FPS = 8
LANDSCAPE = (96, 160)
PORTRAIT = (160, 96)

# Saturated subjects on muted backgrounds, by night too, so that no subject can hide in its environment.
SUBJECT_RGB = torch.tensor(
    [
        [0.90, 0.10, 0.10],
        [1.00, 0.50, 0.05],
        [1.00, 0.90, 0.10],
        [0.02, 0.64, 0.12],
        [0.05, 0.85, 0.90],
        [0.10, 0.25, 0.95],
        [0.50, 0.10, 0.75],
        [1.00, 0.24, 0.68],
    ]
)
GROUND_RGB = torch.tensor(
    [
        [0.53, 0.74, 0.47],
        [0.55, 0.69, 0.85],
        [0.88, 0.77, 0.56],
        [0.91, 0.93, 0.96],
        [0.60, 0.60, 0.62],
        [0.93, 0.66, 0.73],
    ]
)
NIGHT_GROUND = torch.tensor([0.38, 0.40, 0.54])
NIGHT_SUBJECT = 0.80


@dataclass(frozen=True)
class Scenes:
    """Slot values of a batch of clips: one int64 tensor of shape ``(batch,)`` per slot."""

    shape: torch.Tensor
    colour: torch.Tensor
    motion: torch.Tensor
    environment: torch.Tensor
    camera: torch.Tensor
    lighting: torch.Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def stacked(self) -> torch.Tensor:
        """Return slot indices as ``(batch, slots)`` in the order of ``SLOTS``."""
        return torch.stack([getattr(self, f.name) for f in fields(self)], dim=1)

    @staticmethod
    def of(values: torch.Tensor) -> Scenes:
        """Build from the tensor that ``stacked`` returns."""
        return Scenes(*values.unbind(1))


def held_out(values: torch.Tensor) -> torch.Tensor:
    """Tell which scenes are never drawn for training: a sixth of (shape, colour, motion, environment)."""
    shape, colour, motion, environment = values[:, :4].unbind(1)
    return (shape * 5 + colour * 7 + motion * 11 + environment * 13 + shape * colour) % 6 == 0


def sample_scenes(count: int, generator: torch.Generator, *, test: bool = False) -> Scenes:
    """Draw ``count`` scenes uniformly, from the training combinations or from the held-out ones."""
    kept: list[torch.Tensor] = []
    while sum(len(k) for k in kept) < count:
        values = torch.stack([torch.randint(len(v), (count * 2,), generator=generator) for v in SLOTS.values()], dim=1)
        kept.append(values[held_out(values) == test])
    return Scenes.of(torch.cat(kept)[:count])


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def subject_path(
    motion: torch.Tensor, time: torch.Tensor, size: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    """Return the subject's centre in pixels at times ``(frames,)`` in seconds, ``(batch, frames, 2)`` as (y, x)."""
    count, (height, width), frames = len(motion), size, len(time)
    start_y = height * _uniform(count, 0.44, 0.56, generator)
    start_x = width * _uniform(count, 0.44, 0.56, generator)
    jitter = _uniform(count, 0.9, 1.1, generator)[:, None]
    phase = _uniform(count, 0, 2 * math.pi, generator)[:, None]
    # A linear motion covers about a third of the frame in four seconds: far, but not out of it.
    travel_x = 0.080 * width * time * jitter
    travel_y = 0.085 * height * time * jitter
    still = torch.zeros(count, frames)
    hop = -0.28 * height * torch.sin(math.pi * time * 0.9 * jitter + phase / 2).abs()
    orbit = 2 * math.pi * time * 0.25 * jitter + phase
    radius = 0.16 * min(size)
    dy = {
        "up": -travel_y,
        "down": travel_y,
        "bounce": hop + 0.14 * height,
        "circle": radius * torch.sin(orbit),
    }
    dx = {"left": -travel_x, "right": travel_x, "circle": radius * torch.cos(orbit)}
    offset_y = torch.stack([dy.get(m, still) for m in MOTIONS])[motion, torch.arange(count)]
    offset_x = torch.stack([dx.get(m, still) for m in MOTIONS])[motion, torch.arange(count)]
    return torch.stack([start_y[:, None] + offset_y, start_x[:, None] + offset_x], dim=-1)


def _polygon_distance(y: torch.Tensor, x: torch.Tensor, points: list[tuple[float, float]]) -> torch.Tensor:
    """Signed distance (negative inside) to a closed polygon given as (y, x) corners; exact."""
    best = torch.full_like(y, 1e9)
    sign = torch.ones_like(y)
    for (ay, ax), (by, bx) in zip(points, points[1:] + points[:1], strict=True):
        ey, ex, wy, wx = by - ay, bx - ax, y - ay, x - ax
        t = ((wy * ey + wx * ex) / (ey * ey + ex * ex)).clamp(0, 1)
        best = torch.minimum(best, (wy - ey * t) ** 2 + (wx - ex * t) ** 2)
        up, down, side = y >= ay, y < by, ex * wy > ey * wx
        flip = (up & down & side) | (~up & ~down & ~side)
        sign = torch.where(flip, -sign, sign)
    return sign * best.sqrt()


def _star_points(spikes: int = 5, inner: float = 0.42) -> list[tuple[float, float]]:
    corners = [(1.32 if i % 2 == 0 else 1.32 * inner, math.pi * i / spikes) for i in range(2 * spikes)]
    return [(-r * math.cos(a), r * math.sin(a)) for r, a in corners]


def shape_distance(shape: str, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Signed distance to a shape of about unit radius around the origin, y pointing down."""
    if shape == "ball":
        return (y * y + x * x).sqrt() - 1.0
    if shape == "square":
        return _polygon_distance(y, x, [(-0.88, -0.88), (-0.88, 0.88), (0.88, 0.88), (0.88, -0.88)])
    if shape == "triangle":
        return _polygon_distance(y, x, [(-1.05, 0.0), (0.85, 1.12), (0.85, -1.12)])
    return _polygon_distance(y, x, _star_points())


TEXTURE, EXTENT = 257, 2.0


@lru_cache(maxsize=1)
def _distance_textures() -> torch.Tensor:
    """Signed distances of all shapes on a grid over ``[-EXTENT, EXTENT]``, ``(shapes, 1, TEXTURE, TEXTURE)``."""
    axis = torch.linspace(-EXTENT, EXTENT, TEXTURE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([shape_distance(shape, y, x) for shape in SHAPES])[:, None]


def _camera(camera: torch.Tensor, time: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the horizontal shift in pixels and the zoom factor, each ``(batch, frames)``."""
    shift = torch.stack([0 * time, -time, time, 0 * time])[camera] * 0.10 * width
    zoom = torch.stack([0 * time, 0 * time, 0 * time, time])[camera] * 0.11
    return shift, 1 + zoom


def _background(scenes: Scenes, time: torch.Tensor, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Sky, two ranges of hills and striped ground in the tints of one colour, ``(batch, frames, 3, h, w)``."""
    count, (height, width) = len(scenes), size
    shift, zoom = _camera(scenes.camera, time, width)
    y = (torch.arange(height) + 0.5 - height / 2).view(1, 1, -1, 1)
    x = (torch.arange(width) + 0.5 - width / 2).view(1, 1, 1, -1)
    zoomed = zoom[..., None, None]
    wy = y / zoomed
    wx = x / zoomed + shift[..., None, None]

    def wave(low: float, high: float, amplitude: float) -> torch.Tensor:
        period = _uniform(count, low, high, generator).view(-1, 1, 1, 1)
        phase = _uniform(count, 0, 2 * math.pi, generator).view(-1, 1, 1, 1)
        return amplitude * torch.sin(2 * math.pi * wx / period + phase)

    tint = GROUND_RGB.to(shift.device)[scenes.environment] + 0.03 * (torch.rand(count, 3, generator=generator) - 0.5)
    tint = tint.view(count, 1, 3, 1, 1)
    horizon = height * _uniform(count, -0.06, 0.06, generator).view(-1, 1, 1, 1)
    # Large and of strong contrast: a pan is only seen, and only learned, by what moves through the frame.
    hills = horizon + wave(90, 140, 9.0) + wave(45, 65, 3.0)
    sky = (tint * 0.35 + 0.65) * (0.97 - 0.10 * (wy / height + 0.5) + wave(80, 130, 0.05)).unsqueeze(2)
    ground = tint * (0.90 + wave(60, 100, 0.13)).unsqueeze(2)
    mask = torch.sigmoid((wy - hills) * 2.5).unsqueeze(2)
    picture = sky * (1 - mask) + ground * mask
    night = scenes.lighting.view(count, 1, 1, 1, 1) == LIGHTINGS.index("night")
    return torch.where(night, picture * NIGHT_GROUND.to(shift.device).view(1, 1, 3, 1, 1), picture)


def _subject_mask(
    scenes: Scenes, path: torch.Tensor, radius: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return coverage and height within the subject (-1 top to 1 bottom), each ``(batch, frames, h, w)``."""
    height, width = size
    y = torch.arange(height).view(1, 1, -1, 1) + 0.5 - path[..., 0, None, None]
    x = torch.arange(width).view(1, 1, 1, -1) + 0.5 - path[..., 1, None, None]
    scale = radius[..., None, None]
    y, x = y / scale, x / scale
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=-1).flatten(1, 2) / EXTENT
    # Looking the distance up is several times faster than computing it for every pixel of every frame.
    texture = _distance_textures().to(path.device)[scenes.shape]
    distance = torch.nn.functional.grid_sample(texture, grid, padding_mode="border", align_corners=True)
    distance = distance.view(len(scenes), -1, height, width)
    return (0.5 - distance * scale / 1.2).clamp(0, 1), y


def draw(
    scenes: Scenes, frames: int, size: tuple[int, int], generator: torch.Generator, *, start: int = 0
) -> torch.Tensor:
    """Draw clips.

    Args:
        scenes: What is in them.
        frames: Frames per clip, at ``FPS`` frames per second.
        size: ``(height, width)`` in pixels.
        generator: Decides everything that is not a slot.
        start: First frame; later ones show the subject on its way.

    Returns:
        float32 in [0, 1], ``(batch, 3, frames, height, width)``.
    """
    count = len(scenes)
    time = (torch.arange(frames) + start) / FPS
    path = subject_path(scenes.motion, time, size, generator)
    _, zoom = _camera(scenes.camera, time, size[1])
    radius = min(size) * _uniform(count, 0.18, 0.215, generator)[:, None] * zoom
    picture = _background(scenes, time, size, generator)
    mask, depth = _subject_mask(scenes, path, radius, size)
    rgb = SUBJECT_RGB.to(radius.device)[scenes.colour].view(count, 1, 3, 1, 1)
    night = scenes.lighting.view(count, 1, 1, 1, 1) == LIGHTINGS.index("night")
    # Lit from above: the lower half is a little darker.
    subject = rgb * (0.97 - 0.13 * depth.clamp(-1, 1)).unsqueeze(2) * torch.where(night, NIGHT_SUBJECT, 1.0)
    mask = mask.unsqueeze(2)
    return (picture * (1 - mask) + subject * mask).clamp(0, 1).transpose(1, 2).contiguous()
