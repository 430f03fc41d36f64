"""The files of the page: what they weigh, where they are from, and that they ask nobody else for anything."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from scripts.vendor_web import LIBRARIES, VENDOR, digest, published
from server.web import FOLDER, Site, bundle, shrink

# What a first visit costs, as it is sent; and what it becomes in the browser, where every file is its own source.
MAX_SENT, MAX_UNPACKED = 55_000, 150_000
MANIFEST = json.loads((VENDOR / "manifest.json").read_text())
FILES = {name: entry for package in MANIFEST.values() for name, entry in package["files"].items()}
SOURCES = sorted(path for path in FOLDER.glob("*") if path.suffix in {".js", ".css", ".html", ".svg"})


@pytest.fixture(scope="module")
def site() -> Site:
    return Site.read()


def test_the_page_stays_within_its_budget(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = {"index.html": site.page} | {name: file for name, file in site.files.items() if not name.endswith(".txt")}
    sent = {name: len(file.packed) for name, file in loaded.items()}
    unpacked = sum(len(file.content) for file in loaded.values())
    with capsys.disabled():
        print(f" [page: {unpacked:,} bytes, {sum(sent.values()):,} as they are sent] ", end="")
    assert sum(sent.values()) <= MAX_SENT
    assert unpacked <= MAX_UNPACKED


def test_what_only_people_read_is_not_sent_and_libraries_are_sent_as_they_are(site: Site) -> None:
    source = (FOLDER / "gallery.js").read_text()
    assert "/**" in source
    assert b"/**" not in site.files["app.js"].content
    for name in FILES:
        assert site.files[f"vendor/{name}"].content == (VENDOR / name).read_bytes()


def test_modules_are_sent_as_one_that_runs_them_in_the_order_of_their_imports() -> None:
    modules = {
        "app.js": b"import { twice } from './b.js';\nimport { log } from './a.js';\n\nlog(twice(4));\n",
        "b.js": b"import { log, add } from './a.js';\nexport const twice = (it) => add(it, it);\nlog('b');\n",
        "a.js": b"import { sum } from './vendor/v.js';\nexport { log } from './vendor/v.js';\n"
        b"export function add(one, other) {\n  return sum(one, other);\n}\n",
        "vendor/v.js": b"export const sum = (a, b) => a + b, log = console.log;",
    }
    sent = shrink.shrunk(modules)
    assert sent.keys() == {"app.js", "vendor/v.js"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vendor").mkdir()
        for name, text in sent.items():
            (Path(folder) / name).with_suffix(".mjs" if name == "app.js" else ".js").write_bytes(text)
        (Path(folder) / "package.json").write_text('{"type": "module"}')
        done = subprocess.run(["node", "app.mjs"], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "b\n8\n"


def test_the_sources_can_be_joined() -> None:
    imports = re.compile(r"^import .*$", re.M)
    tops: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.js")):
        source = bundle.NAMED.sub("", path.read_text())
        rest = imports.findall(source)
        assert rest in ([], ["import htm from './vendor/htm.js';"]), path.name
        assert not re.search(r"\bimport\('\./(?!types)", source), path.name
        assert " as " not in "".join(names for names, _ in bundle.NAMED.findall(path.read_text())), path.name
        for name in re.findall(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", source, re.M):
            assert tops.setdefault(name, path.name) == path.name, name


def test_of_templates_their_layout_is_taken_out_and_their_text_stays() -> None:
    source = b"export const a = (b) => html`<p>\n    <b>two  words</b>\n    ${b}\n  -d </p>`"
    sent = shrink.shrunk({"a.js": source})["a.js"]
    assert b"`<p>\n<b>two  words</b>\n${" in sent
    assert b"\n  -d </p>`" in sent


def test_tags_of_templates_lose_the_quotes_that_they_can_do_without() -> None:
    source = b'export const a = (b) => html`<p class="row" title="two words" id="x"/><b class="y">a="c"</b>`'
    assert b'`<p class=row title="two words" id=x/><b class=y>a="c"</b>`' in shrink.shrunk({"a.js": source})["a.js"]


def test_what_styles_name_has_one_short_name_wherever_it_is_said() -> None:
    sources = {
        "a.css": b":root{--accent:red;--accent-soft:pink}p{color:var(--accent);background:var(--accent-soft)}",
        "b.js": b"export const f=(e,n)=>{for(;n--;)e.style.setProperty('--accent','blue'+'block--accent')}",
    }
    sent = shrink.shrunk(sources)
    assert sent["a.css"] == b":root{--a:red;--b:pink}p{color:var(--a);background:var(--b)}"
    assert b'"--a"' in sent["b.js"]
    assert b"block--accent" in sent["b.js"]
    assert b"--;" in sent["b.js"]


def test_without_the_minifier_the_sources_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink, "find_spec", lambda _name: None)
    shrink._minified.cache_clear()
    assert shrink.shrunk({"a.js": b"/* why */ let a = 1"}) == {"a.js": b"/* why */ let a = 1"}
    shrink._minified.cache_clear()


@pytest.mark.parametrize("name", FILES)
def test_a_library_is_what_its_author_published_but_for_the_paths_of_its_imports(name: str) -> None:
    text = (VENDOR / name).read_text()
    assert digest(text) == FILES[name]["sha256"]
    assert digest(published(text)) == FILES[name]["published_sha256"]
    assert not re.search(r"""(from|import)\s*\(?["'][^.]""", text)


def test_every_library_is_pinned_and_brings_its_licence() -> None:
    pinned = {library.package: (library.version, library.licence) for library in LIBRARIES}
    assert {package: (told["version"], told["licence"]) for package, told in MANIFEST.items()} == pinned
    for told in MANIFEST.values():
        assert digest((VENDOR / told["licence_file"]).read_text()) == told["licence_sha256"]
        assert told["integrity"].startswith("sha512-")
    scripts = {path.name for path in VENDOR.glob("*.js")}
    assert scripts == set(FILES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_source_is_short_and_asks_nobody_else_for_anything(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    # Namespaces are names, not addresses.
    assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/)[a-z0-9-]+\.[a-z]", text)


def test_its_version_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<script src='/studio/{version}/a.js'></script>")
    (tmp_path / "a.js").write_text("1")
    first = Site.read(tmp_path)
    (tmp_path / "a.js").write_text("2")
    second = Site.read(tmp_path)
    assert first.version != second.version
    assert second.version.encode() in second.page.content
    assert gzip.decompress(second.files["a.js"].packed) == b"2"
