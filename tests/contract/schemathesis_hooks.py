"""What schemathesis is told about us: the shape of every refusal, and how to ask for something that can be made."""

from __future__ import annotations

from typing import Any

import schemathesis

MAKING = frozenset({"/v1/videos", "/v1/videos/variations", "/v1/videos/{video_id}/remix"})


@schemathesis.check
def every_error_is_in_the_envelope(ctx: Any, response: Any, case: Any) -> None:
    if response.status_code < 400:
        return
    body = response.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"message", "type", "param", "code"}, body
    assert body["error"]["message"], body
    assert body["error"]["code"], body
    assert response.headers["x-request-id"]


@schemathesis.hook
def map_body(ctx: Any, body: Any) -> Any:
    """Let every second creation ask for no more than it must: free choices of everything are never possible at once."""
    is_made = ctx.operation.path in MAKING and ctx.operation.method == "post"
    if not is_made or not isinstance(body, dict) or not isinstance(body.get("prompt"), str) or len(body) % 2:
        return body
    return {"prompt": body["prompt"], "num_inference_steps": 1}
