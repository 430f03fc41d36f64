"""What a joined file says of its pieces. Apart from the joining, which needs a codec: whoever reads this does not."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

JOINED = "joined"


class Piece(BaseModel):
    """What a joined file says of one of its pieces: which frames of which video, and what that was made of."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    video: str
    start_frame: int
    end_frame: int
    made: Mapping[str, JsonValue] | None = None

    def cut(self, start: int, end: int) -> Piece | None:
        """Return what is left of the piece if only its frames ``start`` up to ``end`` are kept; None for nothing."""
        first = self.start_frame + max(start, 0)
        last = min(self.start_frame + end, self.end_frame)
        return self.model_copy(update={"start_frame": first, "end_frame": last}) if first < last else None


def pieces_of(made: Mapping[str, JsonValue] | None) -> tuple[Piece, ...]:
    """Return what a clip was joined from, by what is written in it; nothing if it was not, or is not well-formed."""
    listed = (made or {}).get(JOINED)
    try:
        return tuple(Piece.model_validate(piece) for piece in listed) if isinstance(listed, list) else ()
    except ValidationError:
        return ()
