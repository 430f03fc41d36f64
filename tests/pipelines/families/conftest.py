"""Previews that are fitted in a moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.accel import projection
from pipelines.accel.projection import Projection
from pipelines.accel.sketches import Sketcher


@pytest.fixture(scope="class")
def quick_sketches() -> Iterator[None]:
    """Fit sketches to a few latents, and once for all that a class loads: it has the same VAE whatever the plan."""
    fit, fitted = Sketcher.fit, list[Projection]()

    def fit_once(sketcher: Sketcher) -> None:
        if sketcher._projection is None and fitted:
            sketcher._projection = fitted[0]
        fit(sketcher)
        if sketcher._projection is not None:
            fitted.append(sketcher._projection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "FRAMES", 3)
        patch.setattr(projection, "LATENT_SIDE", 4)
        patch.setattr(Sketcher, "fit", fit_once)
        yield
