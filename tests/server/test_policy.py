"""The operator's rules: what they find, and what becomes of a video that they block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines.types import GenerationRequest
from server import images
from server.app import create_app
from server.cli.main import main
from server.delivery import DeliveryQueue
from server.deps import Services
from server.jobs import NOBODY, JobId, WorkerId
from server.outbox import EventType
from server.policy import BLOCKED, BadPolicy, Policy, Rule
from server.settings import Settings
from tests.server.routes.conftest import Hand, movie, picture

EXAMPLE = Path(__file__).parents[2] / "configs" / "policy.example.yaml"
MakeRequest = Callable[..., GenerationRequest]


def blocks(rule: dict[str, Any], request: GenerationRequest) -> bool:
    return Policy((Rule.model_validate({"name": "x", **rule}),)).judge(request, "video_1").blocked


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("gore", "gore"), ("gore", "Some GORE, please"), ("gore", "“gore”"), ("gore", "no-gore-here"),
        ("gore", "gore\n"),
        ("pipe bomb", "a pipe   bomb"), ("pipe bomb", "a pipe\u00a0\n\tbomb"), ("pipe bomb", "PIPE BOMB!"),
        ("gore", "\uff27\uff2f\uff32\uff25"), ("gore", "go\u200bre"), ("gore", "g\u0301o\u0308re"),
        ("gore", "\U0001d420\U0001d428\U0001d42b\U0001d41e"),
        ("café", "CAFE\u0301"), ("straße", "STRASSE"), ("кровь", "Много КРОВИ и кровь"),
        ("血", "很多血液"), ("เลือด", "มีเลือดมาก"),
        ("c++", "in C++."), ("<script>", "a <script> b"), ("a.b", "a.b"),
    ],
)  # fmt: skip
def test_a_term_is_found_however_it_is_written(make_request: MakeRequest, term: str, text: str) -> None:
    assert blocks({"terms": [term]}, make_request(prompt=text))


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("gore", "gorest"), ("gore", "Al Gores"), ("gore", "ogore"), ("gore", "g o r e"), ("pipe bomb", "pipebomb"),
        ("pipe bomb", "pipe, bomb"), ("a.b", "axb"), ("gore", ""), ("kill", "skill"), ("кровь", "кровью"),
    ],
)  # fmt: skip
def test_a_term_is_no_part_of_a_word_and_no_expression(make_request: MakeRequest, term: str, text: str) -> None:
    assert not blocks({"terms": [term]}, make_request(prompt=text))


def test_patterns_search_the_text_as_it_was_sent(make_request: MakeRequest) -> None:
    rule = {"patterns": [r"\bdeepfake of [A-Z]\w+", r"(?-i:SECRET)"]}
    assert blocks(rule, make_request(prompt="A DeepFake of somebody"))
    assert blocks(rule, make_request(prompt="SECRET"))
    assert not blocks(rule, make_request(prompt="secret"))


def test_only_the_fields_of_a_rule_are_looked_at(make_request: MakeRequest) -> None:
    request = make_request(prompt="a ball", negative_prompt="gore")
    assert not blocks({"terms": ["gore"]}, request)
    assert blocks({"terms": ["gore"], "fields": ["negative_prompt"]}, request)
    assert blocks({"terms": ["gore"], "fields": ["prompt", "negative_prompt"]}, request)


def test_a_pattern_that_takes_too_long_counts_as_found(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.policy.MATCH_S", 0.05)
    slow = r"(?:(\w+)\s?)+(?!\1)\1\1$"
    assert blocks({"patterns": [slow]}, make_request(prompt="a b " * 4000 + "!"))
    assert "policy_pattern_too_slow" in caplog.text
    assert "a b a b" not in caplog.text


def test_without_a_file_there_are_no_rules(make_request: MakeRequest) -> None:
    verdict = Policy.read(None).judge(make_request(prompt="anything"), "video_1")
    assert (verdict.blocked, verdict.warnings) == (False, ())


def test_the_example_is_a_policy(make_request: MakeRequest) -> None:
    policy = Policy.read(EXAMPLE)
    assert policy.judge(make_request(prompt="how to make a pipe bomb"), "video_1").blocked
    assert policy.judge(make_request(prompt="a deepfake of my boss"), "video_1").blocked
    kept = policy.judge(make_request(prompt="a ball", negative_prompt="a watermark"), "video_1")
    assert (kept.blocked, kept.warnings) == (False, ("the policy of this server has a remark: house style",))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the file"),
        ("[]", "the file"),
        ("rules: 5", "rules"),
        ("rule: []", "rules"),
        ("rules: [{}]", "rules.0.name"),
        ("rules: [{name: a}]", "terms or patterns"),
        ("rules: [{name: a, terms: ['']}]", "rules.0.terms.0"),
        ('rules: [{name: a, terms: ["\\u200b"]}]', "rules.0.terms.0"),
        ("rules: [{name: a, patterns: ['(']}]", "expression"),
        ("rules: [{name: a, terms: [b], action: delete}]", "rules.0.action"),
        ("rules: [{name: a, terms: [b], colour: 1}]", "colour"),
        ("rules: [{name: a, terms: [b], fields: [seed]}]", "rules.0.fields.0"),
        ("rules: [{name: a, terms: [b], fields: []}]", "fields"),
        ("rules: [{name: 'a\\nb', terms: [b]}]", "rules.0.name"),
        ("rules: [", "expected"),
        ("!!python/name:os.system", "tag"),
    ],
)
def test_what_is_no_policy_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(BadPolicy, match=complaint) as refused:
        Policy.read(path)
    assert "policy.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_server_does_not_start_without_the_policy_it_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.yaml"
    arguments = ["serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--policy", str(missing)]
    assert main(arguments) == 2
    assert "missing.yaml: No such file" in capsys.readouterr().err


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("pipelines.holdings.installed", lambda card: True)
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "rules:\n"
        "  - {name: gore, terms: [gore]}\n"
        "  - {name: marks, terms: [watermark], action: warn}\n"
        "  - {name: quiet, terms: [kitten], action: log}\n"
    )
    settings = Settings(data_dir=tmp_path / "data", policy=policy, max_queued=2)
    with TestClient(create_app(settings, supervise=False)) as client:
        yield client


@pytest.fixture
def services(client: TestClient) -> Services:
    return client.app.state.services  # pyright: ignore


HOSTED = {"code": "moderation_blocked", "message": "Your request was blocked by our moderation system."}


def failed_as_on_the_hosted_service(client: TestClient, video: dict[str, Any]) -> None:
    """The request is answered 200, and so is every look at the video, which has failed with their code and words."""
    for answer in (video, client.get(f"/v1/videos/{video['id']}").json()):
        assert (answer["object"], answer["status"], answer["error"]) == ("video", "failed", HOSTED)
        assert (answer["progress"], answer["completed_at"]) == (0, answer["created_at"])
    content = client.get(f"/v1/videos/{video['id']}/content")
    assert (content.status_code, content.json()["error"]["code"]) == (400, "video_failed")


def test_the_words_are_the_hosted_services() -> None:
    assert {"code": BLOCKED.code, "message": BLOCKED.message} == HOSTED


def test_a_blocked_video_fails_before_anything_is_spent_on_it(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> tuple[int, int]:
        raise AssertionError("looked at")

    monkeypatch.setattr(images, "check", never)
    files = {"input_reference": ("x.png", picture())}
    answer = client.post("/v1/videos", data={"prompt": "Gore!"}, files=files)
    assert answer.status_code == 200
    failed_as_on_the_hosted_service(client, answer.json())
    assert services.store.waiting() == ()
    assert services.store.claim(JobId(answer.json()["id"]), WorkerId("w"), 60) is None
    assert services.assets.sizes() == {}


def test_every_way_to_a_video_is_looked_at(client: TestClient, services: Services, tmp_path: Path) -> None:
    source = client.post("/v1/videos", json={"prompt": "a ball"}).json()["id"]
    Hand(services, tmp_path).finish(source)
    variations = client.post("/v1/videos/variations", json={"prompt": "gore", "n": 2}).json()["data"]
    clip = {"video": ("x.mp4", movie(), "video/mp4")}
    videos = [
        *variations,
        client.post(f"/v1/videos/{source}/remix", json={"prompt": "gore"}).json(),
        client.post("/v1/videos/edits", data={"prompt": "gore"}, files=clip).json(),
        client.post("/v1/videos/extensions", json={"prompt": "gore", "seconds": "2", "video": {"id": source}}).json(),
    ]
    assert len(videos) == 5
    for video in videos:
        failed_as_on_the_hosted_service(client, video)
    assert set(services.assets.sizes()) == {source}


def test_blocked_videos_take_no_places_in_the_queue(client: TestClient) -> None:
    for _ in range(5):
        assert client.post("/v1/videos", json={"prompt": "gore"}).json()["status"] == "failed"
    for _ in range(2):
        assert client.post("/v1/videos", json={"prompt": "a ball"}).json()["status"] == "queued"
    assert client.post("/v1/videos", json={"prompt": "gore"}).json()["status"] == "failed"
    assert client.post("/v1/videos", json={"prompt": "a ball"}).status_code == 429


def test_a_remark_is_a_warning_and_a_note_is_in_the_log_alone(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    remarked = client.post("/v1/videos", json={"prompt": "a watermark"}).json()
    assert (remarked["status"], remarked["warnings"][-1]) == ("queued", "the policy of this server has a remark: marks")
    noted = client.post("/v1/videos", json={"prompt": "a kitten"}).json()
    assert (noted["status"], noted["warnings"]) == ("queued", [])
    assert f"policy_matched id={noted['id']} rule=quiet action=log" in caplog.text
    assert "kitten" not in caplog.text


def test_webhooks_and_streams_are_told(client: TestClient, services: Services) -> None:
    services.endpoints.add(NOBODY, "x", "https://192.0.43.8/", (EventType.VIDEO_FAILED,))
    video = client.post("/v1/videos", json={"prompt": "gore"}).json()["id"]
    stream = client.get(f"/v1/videos/{video}/events").text
    assert "event: video.failed" in stream
    assert "moderation_blocked" in stream
    queue = DeliveryQueue(services.store.engine, lambda: 4e9)
    assert [delivery.subject for delivery in queue.claim({}, 9)] == [video]


def test_a_retry_finds_the_blocked_video(client: TestClient) -> None:
    first = client.post("/v1/videos", json={"prompt": "gore"}, headers={"idempotency-key": "k"})
    again = client.post("/v1/videos", json={"prompt": "gore"}, headers={"idempotency-key": "k"})
    assert first.json()["id"] == again.json()["id"]


def test_a_batch_tells_of_its_blocked_lines(client: TestClient) -> None:
    line = '{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "gore"}}'
    upload = {"file": ("in.jsonl", line.encode())}
    file = client.post("/v1/files", data={"purpose": "batch"}, files=upload).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/videos", "completion_window": "24h"}
    batch = client.post("/v1/batches", json=asked).json()["id"]
    while client.get(f"/v1/batches/{batch}").json()["status"] in {"validating", "in_progress", "finalizing"}:
        pass
    ended = client.get(f"/v1/batches/{batch}").json()
    assert ended["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
    assert "moderation_blocked" in client.get(f"/v1/files/{ended['error_file_id']}/content").text
