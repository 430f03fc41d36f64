"""Files and batches through OpenAI's unmodified Python client, and a batch whose server is killed again and again."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch
from PIL import Image

from server.control import Control
from server.jobs import JobId
from server.settings import Settings
from server.store import JobStore
from tests.acceptance.serving import serving
from tests.acceptance.test_durability import Server, until

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
OVER = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[openai.OpenAI]:
    with serving(tmp_path / "data") as base_url, openai.OpenAI(base_url=base_url, api_key="anything") as client:
        yield client


def lines(count: int, **changes: Any) -> bytes:
    requests = [
        {
            "custom_id": f"shot-{number}",
            "method": "POST",
            "url": "/v1/videos",
            "body": {"prompt": "a red ball", "seed": number, "seconds": "2", **changes},
        }
        for number in range(count)
    ]
    return "\n".join(map(json.dumps, requests)).encode()


def submit(client: openai.OpenAI, content: bytes) -> Batch:
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/videos", completion_window="24h", metadata={"scene": "one"}
    )


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    until(lambda: client.batches.retrieve(batch.id).status in OVER)
    return client.batches.retrieve(batch.id)


def results(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id is not None
    found = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    return {line["custom_id"]: line for line in found}


def test_every_method_of_files(client: openai.OpenAI, tmp_path: Path) -> None:
    (tmp_path / "ball.png").write_bytes(b"abc")
    by_path = client.files.create(file=tmp_path / "ball.png", purpose="vision")
    by_bytes = client.files.create(
        file=b"defg", purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (by_path.filename, by_path.bytes, by_path.purpose, by_path.status) == ("ball.png", 3, "vision", "processed")
    assert by_bytes.expires_at == by_bytes.created_at + 3600
    assert client.files.retrieve(by_path.id) == by_path
    assert client.files.content(by_bytes.id).read() == b"defg"
    assert [file.id for file in client.files.list(limit=1, order="asc")] == [by_path.id, by_bytes.id]
    assert [file.id for file in client.files.list(purpose="vision")] == [by_path.id]
    assert client.files.wait_for_processing(by_path.id).status == "processed"
    deleted = client.files.delete(by_path.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (by_path.id, True, "file")
    with pytest.raises(openai.NotFoundError) as gone:
        client.files.retrieve(by_path.id)
    assert gone.value.code == "file_not_found"
    with pytest.raises(openai.BadRequestError) as useless:
        client.files.create(file=b"abc", purpose="fine-tune")
    assert useless.value.param == "purpose"


def test_a_batch_from_upload_to_results(client: openai.OpenAI) -> None:
    bad = {"custom_id": "bad", "method": "POST", "url": "/v1/videos", "body": {"prompt": "x", "size": "huge"}}
    batch = submit(client, lines(3) + b"\n" + json.dumps(bad).encode())
    assert (batch.status, batch.metadata) == ("validating", {"scene": "one"})
    over = ended(client, batch)
    counts = over.request_counts
    assert counts is not None
    assert (over.status, counts.total, counts.completed, counts.failed) == ("completed", 4, 3, 1)
    made = results(client, over.output_file_id)
    assert set(made) == {"shot-0", "shot-1", "shot-2"}
    for line in made.values():
        video = line["response"]["body"]
        assert video["status"] == "completed"
        assert client.videos.download_content(video["id"]).read()[4:8] == b"ftyp"
    assert results(client, over.error_file_id)["bad"]["response"]["body"]["error"]["param"] == "size"
    assert [each.id for each in client.batches.list(limit=1)] == [batch.id]


def test_a_batch_that_is_cancelled_or_wrong(client: openai.OpenAI) -> None:
    cancelled = client.batches.cancel(submit(client, lines(50)).id)
    assert cancelled.status in {"cancelling", "cancelled"}
    over = ended(client, cancelled)
    assert over.status == "cancelled"
    assert over.cancelled_at is not None
    wrong = ended(client, submit(client, b'{"custom_id": "a"}'))
    assert wrong.status == "failed"
    assert wrong.errors is not None
    assert [error.line for error in wrong.errors.data or []] == [1]


def test_a_stored_picture_is_the_first_frame(client: openai.OpenAI, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.effect_noise((320, 200), 80).convert("RGB").save(picture, "PNG")
    file = client.files.create(file=("a.png", picture.getvalue()), purpose="vision")
    # The client cannot send objects as references by itself.
    video = client.videos.create(
        prompt="a red ball", extra_body={"input_reference": {"file_id": file.id}, "reference_fit": "contain"}
    )
    store = JobStore.open(Settings(data_dir=tmp_path / "data").database_url)
    (condition,) = store.get(JobId(video.id)).request.conditions
    store.close()
    assert condition.fit == "contain"


def test_each_line_becomes_one_video_however_often_the_server_is_killed(tmp_path: Path) -> None:
    count = 30
    options = ("--max-batch-waiting", str(count))

    def seeds(server: Server) -> list[int]:
        page = server.store.list(after=None, limit=1000, newest_first=False)
        return sorted(job.request.seed for job in page.jobs)

    def has_fed(server: Server, jobs: int) -> Callable[[], bool]:
        return lambda: len(seeds(server)) >= jobs

    with Server(tmp_path / "data", *options) as server:
        # What is made of the videos is not looked at, so no model needs to be loaded.
        Control(server.store.engine, time.time).pause("")
        content = {"file": ("in.jsonl", lines(count))}
        file = server.api.post("files", data={"purpose": "batch"}, files=content).json()
        order = {"input_file_id": file["id"], "endpoint": "/v1/videos", "completion_window": "24h"}
        batch = server.api.post("batches", json=order).json()
        until(has_fed(server, 5))
        server.process.kill()
    with Server(tmp_path / "data", *options) as server:
        until(has_fed(server, 15))
        server.process.kill()
    with Server(tmp_path / "data", *options) as server:
        until(has_fed(server, count))
        server.api.post(f"batches/{batch['id']}/cancel")
        until(lambda: server.api.get(f"batches/{batch['id']}").json()["status"] == "cancelled")
        over = server.api.get(f"batches/{batch['id']}").json()
        assert over["request_counts"]["total"] == count
        assert over["request_counts"]["completed"] + over["request_counts"]["failed"] == count
        assert seeds(server) == list(range(count))
