"""One model comes at a time; what its process says is what everybody is told."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import pytest

from server.pulls import Pulls, PullState, PullUnderway


@dataclass
class Fetcher:
    """A process whose words are put into its mouth."""

    status: int | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        reading, writing = os.pipe()
        self.stdout: IO[str] | None = os.fdopen(reading)
        self._mouth = os.fdopen(writing, "w")

    def say(self, **told: object) -> None:
        self._mouth.write(json.dumps(told) + "\n")
        self._mouth.flush()

    def babble(self) -> None:
        self._mouth.write("Fetching 3 files\n")

    def end(self, status: int) -> None:
        if self.status is None:
            self.status = status
            self._mouth.close()
            self.ended.set()

    def terminate(self) -> None:
        self.end(-15)

    kill = terminate

    def wait(self, timeout: float | None = None) -> int:
        self.ended.wait(timeout)
        assert self.status is not None
        return self.status


@pytest.fixture
def fetchers() -> list[Fetcher]:
    return []


@pytest.fixture
def pulls(fetchers: list[Fetcher]) -> Iterator[Pulls]:
    def spawn(_model: str) -> Any:
        fetchers.append(Fetcher())
        return fetchers[-1]

    pulls = Pulls(spawn)
    yield pulls
    pulls.close()


def settled(pulls: Pulls, model: str) -> PullState:
    thread = pulls._thread
    assert thread is not None
    thread.join()
    state = pulls.state(model)
    assert state is not None
    return state


def test_what_the_process_says_is_told(pulls: Pulls, fetchers: list[Fetcher]) -> None:
    assert pulls.state("a") is None
    assert pulls.start("a") == PullState("a")
    fetchers[0].babble()
    fetchers[0].say(file="vae/x.safetensors", bytes_done=3, bytes_total=10)
    fetchers[0].end(0)
    assert settled(pulls, "a") == PullState("a", "completed", "vae/x.safetensors", 10, 10)


def test_the_first_word_can_be_waited_for(pulls: Pulls, fetchers: list[Fetcher]) -> None:
    def fail() -> None:
        fetchers[0].say(error={"code": "download_failed", "message": "No room."})
        fetchers[0].end(1)

    pulls.start("b")
    fetchers[0].end(0)
    settled(pulls, "b")
    fetchers.clear()
    timer = threading.Thread(target=lambda: (_until(fetchers), fail()))
    timer.start()
    state = pulls.start("a", wait_s=60)
    timer.join()
    assert (state.status, state.error_message) == ("failed", "No room.")


def _until(fetchers: list[Fetcher]) -> None:
    while not fetchers:
        threading.Event().wait(0.001)


def test_one_comes_at_a_time_and_asking_again_is_looking(pulls: Pulls, fetchers: list[Fetcher]) -> None:
    pulls.start("a")
    assert pulls.start("a").status == "in_progress"
    assert len(fetchers) == 1
    with pytest.raises(PullUnderway) as refused:
        pulls.start("b")
    assert refused.value.model == "a"
    fetchers[0].end(0)
    settled(pulls, "a")
    assert pulls.start("b").status == "in_progress"


def test_a_cancelled_one_ends_and_can_be_asked_for_again(pulls: Pulls, fetchers: list[Fetcher]) -> None:
    pulls.start("a")
    state = pulls.cancel("a")
    assert state is not None
    assert state.status == "cancelled"
    assert fetchers[0].status == -15
    assert pulls.start("a") == PullState("a")
    assert len(fetchers) == 2


def test_a_process_that_dies_without_a_word_has_failed(pulls: Pulls, fetchers: list[Fetcher]) -> None:
    pulls.start("a")
    fetchers[0].end(-9)
    state = settled(pulls, "a")
    assert (state.status, state.error_code) == ("failed", "download_failed")
    assert "-9" in state.error_message


def test_closing_ends_what_is_underway(pulls: Pulls, fetchers: list[Fetcher]) -> None:
    pulls.start("a")
    pulls.close()
    assert fetchers[0].status == -15
