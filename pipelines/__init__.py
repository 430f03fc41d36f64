"""A ``GenerationRequest`` becomes a ``Clip``. Knows nothing of HTTP, jobs or databases."""
