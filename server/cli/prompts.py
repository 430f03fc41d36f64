"""``homereel prompts``: the library of prompts: search, templates, stars, and what two runs differ in."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from server.cli.local import connected_or_own
from server.cli.outcome import Failure, Outcome
from server.cli.words import print_wide, shown

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Sequence

    from server.cli.client import Client

_STYLES = {"same": "", "removed": "red strike", "added": "green"}
_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}


def configure(parser: ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)

    def action(name: str, act: Callable[[Client, Namespace], None], summary: str) -> ArgumentParser:
        sub = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        sub.add_argument("--json", action="store_true", help="print JSON, one object a line")
        sub.set_defaults(act=act)
        return sub

    search = action("search", _search, "find prompts by their words, with what was made of them")
    search.add_argument("words", nargs="*", metavar="WORD", help="words, or beginnings of words; none for the newest")
    search.add_argument("--model", help="only what this model was asked for")
    search.add_argument("-n", "--limit", type=int, default=20, metavar="N", help="how many videos, up to 100")
    templates = action("templates", _templates, "show the templates, or the slots of one")
    templates.add_argument("id", nargs="?", metavar="ID", help="a template")
    save = action("save", _save, "write a template of your own, or change one")
    save.add_argument("--id", metavar="ID", help="the template to change; without it, a new one")
    save.add_argument("--name", help="what it is called")
    save.add_argument("--text", metavar="SENTENCE", help="with {slots}, and [what may be left out] in brackets")
    save.add_argument("--description", metavar="WORDS", help="what it is good for")
    action("forget", _forget, "delete a template of your own").add_argument("id", metavar="ID", help="template_…")
    compose = action("compose", _compose, "make a prompt of a template, or of two")
    compose.add_argument("template", metavar="ID", help="the template (see: homereel prompts templates)")
    compose.add_argument("slots", nargs="*", metavar="SLOT=VALUE", help="what its slots are filled with")
    compose.add_argument("--then", nargs="+", metavar="ID|SLOT=VALUE", help="the second beat, in the same way")
    star = action("star", _star, "keep a prompt")
    star.add_argument("prompt", metavar="PROMPT", help="what to keep")
    star.add_argument("--negative", default="", help="what to steer away from")
    star.add_argument("--note", default="", help="what to remember of it")
    action("starred", _starred, "show the prompts that were kept")
    action("unstar", _unstar, "forget a prompt that was kept").add_argument("id", metavar="ID", help="star_…")
    diff = action("diff", _diff, "say what two videos differ in")
    diff.add_argument("a", metavar="VIDEO", help="one (see: homereel history)")
    diff.add_argument("b", metavar="VIDEO", help="the other")


def run(options: Namespace) -> int:
    """Do what was asked for."""
    with connected_or_own() as client:
        options.act(client, options)
    return Outcome.DONE


def _search(client: Client, options: Namespace) -> None:
    words = " ".join(options.words) or None
    found = client.ask("GET", "/v1/prompts/log", q=words, model=options.model, limit=options.limit)["data"]
    if options.json:
        _print_json(found)
        return
    for entry in found:
        print(entry["prompt"])
        for video in entry["videos"]:
            print(f"  {video['id']}  {video['status']}  {video['model']}  seed {video['seed']}")


def _templates(client: Client, options: Namespace) -> None:
    if options.id is None:
        found = client.ask("GET", "/v1/prompts/templates")["data"]
        if options.json:
            _print_json(found)
            return
        table = Table(Column("id", no_wrap=True), "name", "slots", box=None, pad_edge=False)
        for template in found:
            table.add_row(template["id"], shown(template["name"]), " ".join(s["name"] for s in template["slots"]))
        print_wide(table)
        return
    template = client.ask("GET", f"/v1/prompts/templates/{quote(options.id, safe='')}")
    if options.json:
        _print_json([template])
        return
    print(f"{template['name']}: {template['description']}\n{template['text']}\n")
    for slot in template["slots"]:
        left_out = "" if slot["required"] else " (may be left out)"
        print(f"  {slot['name']}: {slot['label']}{left_out}. {', '.join(slot['suggestions'])}")


def _save(client: Client, options: Namespace) -> None:
    asked = {"name": options.name, "text": options.text, "description": options.description}
    body: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    path = "/v1/prompts/templates"
    known: list[Any] = []
    if options.id is not None:
        path = f"{path}/{quote(options.id, safe='')}"
        seen = client.ask("GET", path)
        known, body["revision"] = seen["slots"], seen["revision"]
    elif not (options.name and options.text):
        raise Failure("a new template needs --name and --text", Outcome.MISUSED)
    if options.text is not None:
        body["slots"] = _slots(options.text, known)
    saved = client.ask("POST", path, body)
    if options.json:
        _print_json([saved])
    else:
        print(saved["id"])


def _slots(text: str, known: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a sentence's slots in their order; those that are known keep their labels and suggestions."""
    outside = re.sub(r"\[[^\]]*\]", "", text)
    there = {slot["name"]: slot for slot in known}
    return [
        {"label": name.replace("_", " ")} | there.get(name, {}) | {"name": name, "required": f"{{{name}}}" in outside}
        for name in dict.fromkeys(re.findall(r"\{(\w+)\}", text))
    ]


def _forget(client: Client, options: Namespace) -> None:
    _remove(client, options, "templates")


def _compose(client: Client, options: Namespace) -> None:
    beats = [_beat([options.template, *options.slots])]
    if options.then:
        beats.append(_beat(options.then))
    composed = client.ask("POST", "/v1/prompts/compose", {"beats": beats})
    if options.json:
        _print_json([composed])
    else:
        print(composed["prompt"])


def _beat(words: Sequence[str]) -> Any:
    template, *slots = words
    filled: dict[str, str] = {}
    for slot in slots:
        name, equals, value = slot.partition("=")
        if not equals:
            raise Failure(f"{slot!r} is no slot with a value, such as subject='a fox'", Outcome.MISUSED)
        filled[name] = value
    return {"template": template, "slots": filled}


def _star(client: Client, options: Namespace) -> None:
    body = {"prompt": options.prompt, "negative_prompt": options.negative, "note": options.note}
    kept = client.ask("POST", "/v1/prompts/starred", body)
    if options.json:
        _print_json([kept])
    else:
        print(kept["id"])


def _starred(client: Client, options: Namespace) -> None:
    after, has_more = None, True
    while has_more:
        page = client.ask("GET", "/v1/prompts/starred", limit=100, after=after)
        if options.json:
            _print_json(page["data"])
        else:
            for star in page["data"]:
                note = f"  ({star['note']})" if star["note"] else ""
                print(f"{star['id']}{note}\n  {star['prompt']}")
        after, has_more = page["last_id"], page["has_more"]


def _unstar(client: Client, options: Namespace) -> None:
    _remove(client, options, "starred")


def _remove(client: Client, options: Namespace, kind: str) -> None:
    gone = client.ask("DELETE", f"/v1/prompts/{kind}/{quote(options.id, safe='')}")
    if options.json:
        _print_json([gone])
    else:
        print(gone["id"])


def _diff(client: Client, options: Namespace) -> None:
    diff = client.ask("GET", "/v1/prompts/diff", a=options.a, b=options.b)
    if options.json:
        _print_json([diff])
        return
    table = Table("parameter", "first", "second", box=None, pad_edge=False)
    for difference in diff["differences"]:
        if difference["name"] != "prompt":
            values = (json.dumps(difference[side], ensure_ascii=False) for side in ("a", "b"))
            table.add_row(difference["name"], *map(shown, values))
    if table.row_count:
        print_wide(table)
    if any(word["kind"] != "same" for word in diff["words"]):
        Console(soft_wrap=True).print(_words(diff["words"]))
    if not diff["differences"]:
        print("nothing: both are the same request")


def _words(words: Sequence[Any]) -> Text:
    """Return a prompt with what has gone and what has come, in colours and in signs that need none."""
    text = Text()
    for word in words:
        before, after = _MARKS[word["kind"]]
        text.append(f"{before}{shown(word['text'], len(word['text']))}{after}", style=_STYLES[word["kind"]])
    return text


def _print_json(things: Sequence[Any]) -> None:
    for thing in things:
        print(json.dumps(thing))
