"""``homereel keys``: make, list and revoke API keys, in the database itself; a running server notices."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from server.cli.configuration import PLACE, add_settings, count, opened, settings_from
from server.cli.outcome import Failure, Outcome
from server.cli.words import print_wide
from server.jobs import NOBODY, Owner
from server.keys import ApiKey, KeyNotFound, KeyStore

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--name", default="", help="what you call it")
    create.add_argument("--rpm", type=count, metavar="N", help="requests a minute that may make or change something")
    # Not under the name of the server's setting, which is read beside it.
    create.add_argument(
        "--max-queued", dest="waiting", type=count, metavar="N", help="videos of this key that may wait at a time"
    )
    create.add_argument(
        "--adopt",
        nargs="?",
        const=NOBODY,
        metavar="ID",
        help="give the new key everything that was made while there was no key, or with the key ID",
    )
    listing = actions.add_parser("list", help="show the keys, without their secrets")
    revoke = actions.add_parser("revoke", help="refuse keys from now on; what they made stays")
    revoke.add_argument("ids", nargs="+", metavar="ID", help="the key's id (see: homereel keys list)")
    for action in (create, listing, revoke):
        action.add_argument("--json", action="store_true", help="print one JSON object per key")
    for action in (create, listing, revoke):
        add_settings(action, PLACE)


def run(options: Namespace) -> int:
    """Do one of the three."""
    with opened(settings_from(options)) as engine:
        store = KeyStore(engine)
        return {"create": _create, "list": _list, "revoke": _revoke}[options.action](options, store)


def _create(options: Namespace, store: KeyStore) -> int:
    is_first = not store.usable()
    try:
        key, secret, adopted = store.create(
            options.name,
            requests_per_minute=options.rpm,
            max_queued=options.waiting,
            adopt=None if options.adopt is None else Owner(options.adopt),
        )
    except KeyNotFound as error:
        raise Failure(f"there is no key {error.key_id} to adopt from; see: homereel keys list") from error
    if options.json:
        print(json.dumps({**vars(key), "secret": secret, "adopted": adopted}))
        return Outcome.DONE
    # Alone on standard output, for HOMEREEL_API_KEY=$(homereel keys create).
    print(secret)
    _say(f"{key.id} was made. Nobody can show its secret again: keep it now.")
    if options.adopt is not None:
        _say(f"{adopted} videos, and what else there was, now belong to it.")
    if is_first:
        _say("From now on every request needs a key; clients send it as their API key.")
    if left := store.count_videos(NOBODY):
        _say(f"{left} videos made without a key are nobody's now; `homereel keys create --adopt` gives them an owner.")
    return Outcome.DONE


def _list(options: Namespace, store: KeyStore) -> int:
    keys = store.list()
    if options.json:
        for key in keys:
            print(json.dumps(vars(key)))
        return Outcome.DONE
    if not keys:
        print("there are no keys: the server is open to whoever reaches it")
        return Outcome.DONE
    names = ("key", "ends in", "name", "requests/min", "queued", "made", "state")
    table = Table(*names, box=None, pad_edge=False)
    for key in keys:
        limits = (str(limit or "any") for limit in (key.requests_per_minute, key.max_queued))
        table.add_row(key.id, f"…{key.hint}", _plain(key.name), *limits, _day(key.created_at), _state(key))
    print_wide(table)
    return Outcome.DONE


def _revoke(options: Namespace, store: KeyStore) -> int:
    outcome = Outcome.DONE
    for key_id in options.ids:
        try:
            revoked = store.revoke(key_id).id
            print(json.dumps({"id": revoked, "revoked": True}) if options.json else revoked)
        except KeyNotFound:
            _say(f"there is no key {key_id}; see: homereel keys list")
            outcome = Outcome.FAILED
    if not store.usable():
        _say(
            "There is no key left. A server that only this machine can reach is open now; any other refuses everybody."
        )
    return outcome


def _say(sentence: str) -> None:
    print(f"homereel: {sentence}", file=sys.stderr)


def _plain(name: str) -> Text:
    return Text("".join(character if character.isprintable() else " " for character in name))


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d")


def _state(key: ApiKey) -> str:
    return "good" if key.revoked_at is None else f"revoked {_day(key.revoked_at)}"
