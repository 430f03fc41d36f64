from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from server.assets import Variant
from tests.server.routes.conftest import CONTENT, Hand, refused

VIDEO = CONTENT[Variant.VIDEO]
SIZE = len(VIDEO)


@pytest.fixture
def url(create: Callable[..., str], hand: Hand) -> str:
    """Address of a finished video's content."""
    video = create()
    hand.finish(video)
    return f"/v1/videos/{video}/content"


@pytest.mark.parametrize(
    ("query", "variant", "kind", "suffix"),
    [
        ("", Variant.VIDEO, "video/mp4", ".mp4"),
        ("?variant=video", Variant.VIDEO, "video/mp4", ".mp4"),
        ("?variant=thumbnail", Variant.THUMBNAIL, "image/webp", ".webp"),
        ("?variant=spritesheet", Variant.SPRITESHEET, "image/jpeg", ".jpg"),
    ],
)
def test_each_variant_comes_whole_and_named(
    client: TestClient, url: str, query: str, variant: Variant, kind: str, suffix: str
) -> None:
    # What the SDKs send; the answer does not depend on it.
    answer = client.get(url + query, headers={"accept": "application/binary"})
    assert (answer.status_code, answer.content) == (200, CONTENT[variant])
    assert answer.headers["content-type"] == kind
    assert answer.headers["content-length"] == str(len(CONTENT[variant]))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == f'attachment; filename="{url.split("/")[3]}{suffix}"'
    assert "content-encoding" not in answer.headers


def test_head_answers_like_get_without_the_bytes(client: TestClient, url: str) -> None:
    whole, head = client.get(url), client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    ours = ("content-length", "etag", "content-type", "accept-ranges", "last-modified", "content-disposition")
    assert {name: head.headers[name] for name in ours} == {name: whole.headers[name] for name in ours}


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=5-5", 5, 6),
        ("bytes=10-", 10, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        (f"bytes={SIZE - 1}-{SIZE + 500}", SIZE - 1, SIZE),
        ("bytes = 1 - 2", 1, 3),
    ],
)
def test_one_range_is_served(client: TestClient, url: str, asked: str, first: int, end: int) -> None:
    answer = client.get(url, headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, VIDEO[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - first)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"])
def test_a_range_outside_the_file_is_refused(client: TestClient, url: str, asked: str) -> None:
    answer = client.get(url, headers={"range": asked})
    assert refused(answer, 416)["code"] == "range_not_satisfiable"
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=9-5", "bytes=-", "bytes=a-b", "frames=0-1", "bytes", "bytes=0-" + "9" * 500]
)
def test_a_range_that_means_nothing_here_is_ignored(client: TestClient, url: str, asked: str) -> None:
    answer = client.get(url, headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, VIDEO)


def test_a_range_of_another_version_gives_the_whole_file(client: TestClient, url: str) -> None:
    whole = client.get(url)
    for same in (whole.headers["etag"], whole.headers["last-modified"]):
        assert client.get(url, headers={"range": "bytes=0-9", "if-range": same}).status_code == 206
    for other in ('"other"', "W/" + whole.headers["etag"], "Wed, 21 Oct 2015 07:28:00 GMT"):
        answer = client.get(url, headers={"range": f"bytes={SIZE}-", "if-range": other})
        assert (answer.status_code, answer.content) == (200, VIDEO)


def test_head_ignores_ranges(client: TestClient, url: str) -> None:
    answer = client.head(url, headers={"range": "bytes=0-9"})
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(SIZE))


def test_a_client_that_has_the_file_gets_no_bytes(client: TestClient, url: str) -> None:
    etag = client.get(url).headers["etag"]
    for tags in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = client.get(url, headers={"if-none-match": tags})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert client.get(url, headers={"if-none-match": '"other"'}).status_code == 200


def test_variants_and_videos_have_different_etags(
    client: TestClient, url: str, create: Callable[..., str], hand: Hand
) -> None:
    other = create()
    hand.finish(other)
    urls = [url, f"{url}?variant=thumbnail", f"/v1/videos/{other}/content"]
    assert len({client.get(each).headers["etag"] for each in urls}) == 3


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("become", "code"),
    [(lambda hand, video: None, "video_not_ready"), (Hand.start, "video_not_ready"), (Hand.fail, "video_failed")],
)
def test_content_that_is_not_there_is_refused_and_not_asked_for_again(
    client: TestClient,
    create: Callable[..., str],
    hand: Hand,
    become: Callable[[Hand, str], object],
    code: str,
    method: str,
) -> None:
    video = create()
    become(hand, video)
    answer = client.request(method, f"/v1/videos/{video}/content")
    assert answer.status_code == 400
    assert answer.headers["x-should-retry"] == "false"
    if method == "GET":
        assert refused(answer)["code"] == code


def test_a_file_that_was_lost_is_not_found(client: TestClient, url: str, hand: Hand) -> None:
    hand.services.assets.delete(url.split("/")[3])  # type: ignore[arg-type]
    assert refused(client.get(url), 404)["code"] == "content_not_found"


def test_an_unknown_variant_is_refused(client: TestClient, url: str) -> None:
    error = refused(client.get(f"{url}?variant=gif"))
    assert error["param"] == "variant"
    assert "'thumbnail'" in error["message"]
