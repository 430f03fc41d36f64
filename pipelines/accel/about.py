"""What PyTorch says of itself and of the GPUs, as one line of JSON: ``python -m pipelines.accel.about``.

Asked by ``homereel doctor``, which loads no tensor library.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from pipelines.accel.attention import CANDIDATES, usable


def about() -> dict[str, Any]:
    """Return versions, the architectures that PyTorch has code for, and what each GPU is and can run."""
    works = torch.cuda.is_available()
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "architectures": torch.cuda.get_arch_list() if works else [],
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())] if works else [],
    }


def _gpu(index: int) -> dict[str, Any]:
    try:
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found: dict[str, Any] = {
            "name": properties.name,
            "capability": [properties.major, properties.minor],
            "free_bytes": free,
            "memory_bytes": total,
        }
        # The first kernel that runs at all; that it does is more than any list can tell.
        found["attention"] = usable(f"cuda:{index}", torch.bfloat16, CANDIDATES)
    except RuntimeError as error:
        return {"name": f"cuda:{index}", "error": str(error).splitlines()[0]}
    return found


if __name__ == "__main__":
    print(json.dumps(about()))  # noqa: T201 - this is what it is for
