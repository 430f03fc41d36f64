"""What a card says of its weights: which parts there are, and from where each of them comes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipelines.snapshot import SINGLE_FILES
from pipelines.types import DType

UPSAMPLER = "latent_upsampler"
"""The name under which diffusers keeps what doubles latents."""
# A path inside of a repository, which leads nowhere else.
_Inside = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")]


class Stored(BaseModel):
    """How a file has a part's weights if not in the numbers that the part computes in: they stay so in memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bits: PositiveFloat = Field(description="Bits a weight, which is the size of the file over all of them.")
    layer: PositiveInt = Field(description="Weights of the largest layer, which are widened while it computes.")


class Component(BaseModel):
    """A part of a model that has weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    params: PositiveInt = Field(description="Parameters, counted from the published configuration.")
    stage: Literal["encode", "denoise", "decode"] = Field(description="The stage that cannot do without it.")
    dtype: DType | None = Field(default=None, description="What it computes in, if that is not the plan's choice.")
    float32: NonNegativeInt = Field(
        default=0, description="How many of them diffusers keeps in float32, whatever the rest computes in."
    )
    stored: Stored | None = Field(default=None, description="How its file has it, if that stays so in memory.")


class Borrowed(BaseModel):
    """A file, or a folder with a configuration and safetensors, that is not in the checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    repo: str | None = Field(default=None, description="Hub repository, 'owner/name'.")
    revision: str = Field(default="main", description="Commit of the repository, or what names one.")
    file: _Inside | None = Field(default=None, description="Path of a file in the repository.")
    folder: _Inside | None = Field(default=None, description="Path of a folder in the repository.")
    path: Path | None = Field(default=None, description="File or folder of this machine, instead of a repository.")

    @model_validator(mode="after")
    def _exactly_one_place(self) -> Borrowed:
        inside = (self.file is not None) + (self.folder is not None)
        if (self.repo is None) == (self.path is None) or inside != (self.repo is not None):
            raise ValueError("name a repo and one of file and folder, or a path")
        if self.file is not None and not self.file.endswith(SINGLE_FILES):
            raise ValueError(f"a file has to be one of {', '.join(SINGLE_FILES)}")
        return self

    @property
    def place(self) -> str:
        """Where it is, without what only this machine knows."""
        return self.path.name if self.path is not None else f"{self.repo}/{self.file or self.folder}@{self.revision}"


class OwnLora(BaseModel):
    """A LoRA that belongs to a model: it is put into a denoiser's weights for good when that is loaded.

    One that refines comes and goes beside the weights, since the first stage of a clip is made without it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    borrowed: str = Field(description="The name under which its file is borrowed.")
    part: str = Field(default="transformer", description="The denoiser that it changes.")
    weight: float = Field(default=1.0, description="How strongly.")
    params: PositiveInt = Field(description="Parameters, counted from its rank and what it changes.")
    refines: bool = Field(default=False, description="Whether it is for the second stage of two alone.")


class Weights(BaseModel):
    """Where the weights are: inside the project, in a hub repository at a revision, or in a folder of this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    package: str | None = Field(default=None, description="Folder of this checkout, dotted: 'pipelines.embedded'.")
    repo: str | None = Field(default=None, description="Hub repository, 'owner/name'.")
    folder: Path | None = Field(default=None, description="Folder of this machine, for cards that users add.")
    layout: str = Field(default="", description="Class that the checkpoint's index names.")
    revision: str = Field(description="Commit of the repository, or version of the packaged weights.")
    components: dict[str, Component] = Field(default_factory=dict, description="The parts, by their folders' names.")
    without: frozenset[str] = Field(default=frozenset(), description="Parts of the checkpoint that are not needed.")
    borrowed: dict[str, Borrowed] = Field(
        default_factory=dict,
        description="What comes from elsewhere, by the name under which the family asks for it. Under the name of a "
        "part, it stands in for that part's weights: of the checkpoint, the configuration alone is needed.",
    )

    loras: tuple[OwnLora, ...] = Field(default=(), description="LoRAs without which it is another model.")

    @model_validator(mode="after")
    def _exactly_one_place(self) -> Weights:
        if sum(place is not None for place in (self.package, self.repo, self.folder)) != 1:
            raise ValueError("name one of package, repo and folder")
        unknown = [lora.borrowed for lora in self.loras if lora.borrowed not in self.borrowed]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is nothing that is borrowed")
        if any(lora.part not in self.components for lora in self.loras):
            raise ValueError("a LoRA changes one of the components")
        return self

    def in_one_stage(self) -> Weights:
        """Return them without what only the second stage of two needs."""
        loras = tuple(lora for lora in self.loras if not lora.refines)
        needless = {UPSAMPLER, *(lora.borrowed for lora in self.loras)} - {lora.borrowed for lora in loras}
        changes = {
            "components": {name: part for name, part in self.components.items() if name not in needless},
            # Where the checkpoint has it, too.
            "without": self.without | {UPSAMPLER},
            "borrowed": {name: thing for name, thing in self.borrowed.items() if name not in needless},
            "loras": loras,
        }
        return self.model_copy(update=changes)

    @property
    def bare(self) -> frozenset[str]:
        """Parts whose weights come from elsewhere, if the checkpoint has them at all."""
        return frozenset(self.borrowed)

    @property
    def is_packed(self) -> bool:
        """Whether parts are stored in fewer bits than they compute in, before any plan asks for that."""
        return any(part.stored is not None for part in self.components.values())

    @property
    def versions(self) -> str:
        """What has to be the same for the weights to be the same."""
        said = [f"{name}: {thing.place}" for name, thing in self.borrowed.items()]
        return ", ".join([self.revision, *said, *(f"{lora.borrowed} x {lora.weight:g}" for lora in self.loras)])
