"""What can go wrong while a clip is made.

PipelineError
 ├─ UnknownModel       no card of that name
 ├─ UnsupportedShape   the card cannot make that size, length or frame rate
 ├─ UnsupportedOption  the card does not honour a parameter that was asked for
 │   └─ MissingCapability  because its model cannot do such things at all
 ├─ InvalidImage       an input image cannot be read
 ├─ WeightsMissing     the card is known, its weights are not here
 ├─ OutOfMemory        the device is too small for the plan
 │   └─ DoesNotFit     because no plan fits it, as was found before anything was tried
 ├─ BadOutput          not a number, black or flat: never handed out as a result
 └─ Cancelled          somebody asked for it

``code`` is stable: clients may branch on it. ``param`` names the request parameter at fault, if one is.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of everything that generation raises on purpose."""

    code = "generation_failed"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class UnknownModel(PipelineError):
    """There is no model card of this name."""

    code = "model_not_found"


class UnsupportedShape(PipelineError):
    """The model cannot make a clip of this size, length or frame rate."""

    code = "unsupported_shape"


class UnsupportedOption(PipelineError):
    """The model does not honour this parameter."""

    code = "unsupported_option"


class MissingCapability(UnsupportedOption):
    """The model cannot do this at all; ``capability`` is the word on the cards of those that can."""

    def __init__(self, message: str, *, param: str, capability: str) -> None:
        super().__init__(message, param=param)
        self.capability = capability


class InvalidImage(PipelineError):
    """The file is not an image that can be read safely."""

    code = "invalid_image"


class WeightsMissing(PipelineError):
    """The model's weights are not on this machine."""

    code = "weights_missing"


class OutOfMemory(PipelineError):
    """The device ran out of memory. The pipeline must be loaded again."""

    code = "out_of_memory"


class DoesNotFit(OutOfMemory):
    """No plan fits the device. Nothing has been tried, and what is loaded is as it was."""


class BadOutput(PipelineError):
    """The model produced no usable picture (not a number, black, or one flat colour)."""

    code = "bad_output"


class Cancelled(PipelineError):
    """Somebody asked for the clip not to be made after all."""

    code = "cancelled"
