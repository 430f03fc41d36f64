"""What a scene can be called: the wordings of every slot, and captions composed of them.

A prompt names some slots and leaves others open, in any order and with words that mean nothing to the model
in between. All values of a slot are left out at the same rate: otherwise silence would mean the commoner one.
"""

from __future__ import annotations

import random

from scripts.embedded.scenes import SLOTS

SHAPE_WORDS = {
    "ball": ("ball", "ball", "sphere", "circle", "orb", "round ball"),
    "square": ("square", "square", "box", "cube", "block"),
    "triangle": ("triangle", "triangle", "pyramid", "cone"),
    "star": ("star", "star", "starfish", "five-pointed star"),
}
COLOUR_WORDS = {
    "red": ("red", "red", "crimson", "scarlet"),
    "orange": ("orange", "orange", "amber"),
    "yellow": ("yellow", "yellow", "lemon yellow"),
    "green": ("green", "green", "emerald"),
    "cyan": ("cyan", "cyan", "turquoise", "teal"),
    "blue": ("blue", "blue", "navy", "royal blue"),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "magenta"),
}
MOTION_WORDS = {
    "left": ("moves left", "moving left", "moving to the left", "slides left", "sliding to the left",
             "drifts left", "flies left", "flying to the left", "rolls to the left", "rolling left",
             "gliding leftwards", "going left", "travels to the left"),
    "right": ("moves right", "moving right", "moving to the right", "slides right", "sliding to the right",
              "drifts right", "flies right", "flying to the right", "rolls to the right", "rolling right",
              "gliding rightwards", "going right", "travels to the right"),
    "up": ("moves up", "moving up", "rises", "rising", "floats up", "floating upwards", "flies up",
           "climbs", "climbing", "ascends", "going up", "soars into the sky"),
    "down": ("moves down", "moving down", "falls", "falling", "sinks", "sinking", "drops", "dropping",
             "descends", "falling down", "going down"),
    "still": ("stays still", "standing still", "rests", "resting", "motionless", "does not move",
              "hovers in place", "sits still", "sitting", "at rest"),
    "bounce": ("bounces", "bouncing", "bounces up and down", "bouncing up and down", "hops", "hopping",
               "jumping up and down", "jumps"),
    "circle": ("moves in circles", "moving in a circle", "circles", "circling", "orbits", "orbiting",
               "flies in circles", "goes round and round"),
}  # fmt: skip
ENVIRONMENT_WORDS = {
    "green": ("on a green field", "over a green field", "in a meadow", "on green grass", "over green hills",
              "on a lawn", "in a green valley", "green background", "on a green background"),
    "blue": ("on a blue sea", "over the ocean", "over blue water", "on a lake", "above blue waves",
             "by the sea", "blue background", "on a blue background"),
    "sand": ("in a sandy desert", "over sand dunes", "in the desert", "on a sandy beach", "on sand",
             "over golden dunes", "beige background", "on a sand coloured background"),
    "white": ("on snow", "in a snowy field", "over white ice", "on a white plain", "over snowy hills",
              "in the snow", "white background", "on a white background"),
    "grey": ("on a grey street", "on asphalt", "over concrete", "in a grey city", "over grey rocks",
             "on a gray road", "grey background", "on a gray background"),
    "pink": ("over pink hills", "in a pink land", "among cherry blossoms", "on a pink field",
             "in a pink candy world", "pink background", "on a pink background"),
}  # fmt: skip
CAMERA_WORDS = {
    "static": ("static camera", "fixed shot", "the camera is static", "locked-off shot", "tripod shot",
               "the camera does not move"),
    "pan left": ("the camera pans left", "pan left", "camera panning left", "panning to the left",
                 "camera pans to the left"),
    "pan right": ("the camera pans right", "pan right", "camera panning right", "panning to the right",
                  "camera pans to the right"),
    "zoom in": ("the camera zooms in", "zoom in", "camera zooming in", "slow push-in", "dolly in",
                "the camera moves closer"),
}  # fmt: skip
LIGHTING_WORDS = {
    "day": ("in daylight", "at noon", "in bright sunlight", "on a sunny day", "during the day", "daytime",
            "by day"),
    "night": ("at night", "in the dark", "under moonlight", "on a dark night", "at midnight", "nighttime",
              "by night"),
}  # fmt: skip
FILLERS = (
    "a video of", "a clip of", "cinematic shot of", "a beautiful", "slowly", "smoothly", "high quality",
    "4k", "realistic", "soft light", "detailed", "an animation of", "gently", "quickly", "wide shot",
    "close-up", "in slow motion", "calm mood", "vivid colours", "minimalist", "the scene shows", "there is",
    "we see", "dreamy", "playful", "documentary style", "35mm film", "shallow depth of field",
)  # fmt: skip
ARTICLES = ("a", "a", "the", "one", "")


def _some(rng: random.Random, words: tuple[str, ...]) -> str:
    return rng.choice(words)


def _subject(rng: random.Random, shape: str | None, colour: str | None) -> str:
    noun = _some(rng, SHAPE_WORDS[shape]) if shape else _some(rng, ("object", "thing", "shape", "toy"))
    adjective = _some(rng, COLOUR_WORDS[colour]) if colour else ""
    return f"{rng.choice(ARTICLES)} {adjective} {noun}"


def caption(values: dict[str, str | None], rng: random.Random) -> str:
    """Compose a caption.

    Args:
        values: A value per slot of ``SLOTS``; None leaves the slot open.
        rng: Chooses words, order and fillers.
    """
    shape, colour, motion = values["shape"], values["colour"], values["motion"]
    head = _subject(rng, shape, colour) if shape or colour or rng.random() < 0.5 else ""
    if motion:
        head = f"{head} {_some(rng, MOTION_WORDS[motion])}"
    tail = []
    for slot, words in (
        ("environment", ENVIRONMENT_WORDS), ("lighting", LIGHTING_WORDS), ("camera", CAMERA_WORDS)
    ):  # fmt: skip
        value = values[slot]
        if value:
            tail.append(_some(rng, words[value]))
    if rng.random() < 0.4:
        rng.shuffle(tail)
    if rng.random() < 0.25:
        tail.insert(rng.randrange(len(tail) + 1), _some(rng, FILLERS))
    if rng.random() < 0.25:
        head = f"{_some(rng, FILLERS)} {head}"
    parts = [head, *tail] if rng.random() < 0.85 else [*tail, head]
    text = "".join(_joined(parts, rng)).strip(" ,.")
    text = " ".join(text.split())
    return text + rng.choice((".", "", "")) if text else ""


def _joined(parts: list[str], rng: random.Random) -> list[str]:
    separators = (" ", " ", ", ", ", ", ". ", ", and ")
    return [piece for part in parts for piece in (part, rng.choice(separators))]


def drop(indices: list[int], rng: random.Random, *, open_rate: float, empty_rate: float) -> dict[str, str | None]:
    """Turn slot indices into named values, leaving each open at ``open_rate`` and all at ``empty_rate``."""
    if rng.random() < empty_rate:
        return dict.fromkeys(SLOTS)
    named = zip(SLOTS.items(), indices, strict=True)
    return {slot: None if rng.random() < open_rate else values[i] for (slot, values), i in named}


def nonsense(rng: random.Random) -> str:
    """A word that is not in the vocabulary, so that the text encoder learns to pass over such words."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 9)))
