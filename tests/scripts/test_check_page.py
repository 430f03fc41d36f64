"""The check of the page's types says what is wrong: the page, or the machine that cannot check it."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import check_page


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A registry that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        ask(monkeypatch, tmp_path, url)
        yield url


def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registry: str) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry)
    monkeypatch.setenv("NPM_CONFIG_CACHE", str(tmp_path / "cache"))
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(proxy, raising=False)


def test_a_registry_that_never_answers_is_named_in_time(
    silent: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert check_page.main(tmp_path / "page", answer_s=1) == check_page.UNAVAILABLE
    # npm by itself would be asking for many minutes; what is left is the time that it takes to start.
    assert time.monotonic() - began < 60
    said = capfd.readouterr().err
    assert said.startswith(f"The page was not checked: npm cannot reach its registry {silent} (FETCH_ERROR)")
    assert "NPM_CONFIG_REGISTRY" in said
    assert str(tmp_path / "page") in said
    assert not (tmp_path / "page" / "installed.json").exists()


@pytest.mark.usefixtures("silent")
def test_npm_that_is_never_done_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_page, "ALL_S", 2)
    with pytest.raises(check_page.ToolsMissing, match="npm was not done after 2 s"):
        check_page.tools(tmp_path / "page", answer_s=300)


def test_a_registry_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    ask(monkeypatch, tmp_path, url)
    with pytest.raises(check_page.ToolsMissing, match=r"cannot reach its registry http://127.* \(ECONNREFUSED\)"):
        check_page.tools(tmp_path / "page", answer_s=1)


def test_what_else_npm_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, tmp_path, "no-address")
    with pytest.raises(check_page.ToolsMissing, match=r"(?s)could not install what checks the page.*Invalid URL"):
        check_page.tools(tmp_path / "page", answer_s=1)


@pytest.mark.parametrize(("found", "said"), [(0, ""), (2, "The page has errors: see above.\n")])
def test_errors_of_the_page_are_something_else(
    found: int, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compiler = tmp_path / "node_modules" / "typescript" / "bin" / "tsc"
    compiler.parent.mkdir(parents=True)
    compiler.write_text(f"process.exit({found})")
    wanted = {library.package: library.version for library in check_page.LIBRARIES}
    installed = wanted | {"typescript": check_page.TYPESCRIPT, "axe-core": check_page.AXE}
    (tmp_path / "installed.json").write_text(json.dumps(installed))
    assert check_page.main(tmp_path) == found
    assert capfd.readouterr().err == said
