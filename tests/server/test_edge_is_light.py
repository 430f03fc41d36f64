from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "safetensors", "imageio_ffmpeg", "PIL"}


def test_the_api_process_loads_no_tensor_library_and_no_codec() -> None:
    program = (
        "import sys; from server.app import create_app; from server.settings import Settings;"
        "create_app(Settings(), supervise=False).openapi(); print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(loaded.stdout.split())
    assert "fastapi" in loaded.stdout.split()
