"""What a model's weights may be used for."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, HttpUrl


class Licence(BaseModel):
    """What the weights may be used for."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    url: HttpUrl
    note: str = ""
    gated: bool = Field(default=False, description="Whether the hub asks for its acceptance before the download.")
    excludes: tuple[str, ...] = Field(default=(), description="Regions whose people it gives nothing to.")
    limit: str = Field(default="", description="Who has to pay or ask, such as companies above a revenue.")
    attribution: str = Field(default="", description="What has to be shown beside what is made.")

    @property
    def is_open(self) -> bool:
        """Whether everybody may use it for anything, so that nobody need be asked first."""
        return not (self.gated or self.excludes or self.limit)

    @property
    def duties(self) -> list[str]:
        """What it asks of whoever uses the model, a sentence each; nothing for those that are open."""
        said = [f"it gives no rights in: {', '.join(self.excludes)}"] if self.excludes else []
        said += [self.limit] if self.limit else []
        said += [f"show {self.attribution!r} beside what is made"] if self.attribution else []
        return said + (["the hub asks for its acceptance before the download"] if self.gated else [])
