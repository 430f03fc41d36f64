"""Keys against a real file: secrets are not in it, and what a key made can be handed on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select

from server import database
from server.intake import QueueFull
from server.jobs import NOBODY, Job, JobId, JobStatus, Owner, WorkerId
from server.keys import SECRET, KeyNotFound, KeyStore, digest_of
from server.settings import Settings
from server.store import JobStore
from server.tables import character, metadata

if TYPE_CHECKING:
    from tests.conftest import Clock

AddJob = Callable[..., JobId]
MakeJob = Callable[..., Job]


@pytest.fixture
def keys(store: JobStore, clock: Clock) -> KeyStore:
    return KeyStore(store.engine, clock)


def test_a_key_is_long_random_and_told_once(keys: KeyStore) -> None:
    made = [keys.create(name) for name in ("ann", "ann")]
    assert all(SECRET.fullmatch(new.secret) for new in made)
    assert len({new.secret for new in made}) == len({new.key.id for new in made}) == 2
    assert {key.hint for key in keys.list()} == {new.secret[-4:] for new in made}


def test_no_file_holds_a_secret(keys: KeyStore, settings: Settings) -> None:
    secret = keys.create("ann").secret
    written = b"".join(path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file())
    assert digest_of(secret).encode() in written
    assert secret.encode() not in written
    assert secret.removeprefix("sk-homereel-")[:20].encode() not in written


def test_a_key_comes_back_as_it_was_made(keys: KeyStore, clock: Clock) -> None:
    new = keys.create("ann", requests_per_minute=30, max_queued=5)
    assert keys.list() == (new.key,)
    assert keys.usable() == {digest_of(new.secret): new.key}
    assert (new.key.requests_per_minute, new.key.max_queued, new.key.created_at) == (30, 5, clock())
    assert re.fullmatch("key_[0-9a-f]{24}", new.key.id)


def test_a_revoked_key_is_listed_and_not_usable(keys: KeyStore, clock: Clock) -> None:
    first, second = keys.create("first"), keys.create("second")
    clock.advance(5)
    revoked = keys.revoke(first.key.id)
    clock.advance(5)
    assert revoked.revoked_at == keys.revoke(first.key.id).revoked_at == clock() - 5
    assert {key.id for key in keys.list()} == {first.key.id, second.key.id}
    assert set(keys.usable().values()) == {second.key}


def test_an_unknown_key_cannot_be_revoked(keys: KeyStore) -> None:
    with pytest.raises(KeyNotFound):
        keys.revoke("key_0")


def test_what_nobody_made_can_be_adopted(keys: KeyStore, store: JobStore, add_job: AddJob) -> None:
    bob = keys.create("bob").key.id
    orphan, bobs = add_job(), add_job(owner=bob)
    with database.durable(store.engine).begin() as db:
        db.execute(insert(character).values(id="char_1", owner=NOBODY, name="Mossy", kind="image", created_at=0.0))
    assert keys.create("plain").adopted == 0
    new = keys.create("ann", adopt=NOBODY)
    assert new.adopted == 1
    assert (store.get(orphan).owner, store.get(bobs).owner) == (new.key.id, bob)
    with store.engine.connect() as db:
        assert db.execute(select(character.c.owner)).scalar_one() == new.key.id
    assert keys.count_videos(NOBODY) == 0


def test_adopting_covers_every_table_with_an_owner(keys: KeyStore, store: JobStore) -> None:
    """A table that names owners under another column would be left behind."""
    naming = {table.name for table in metadata.sorted_tables if {"owner", "owner_id", "key_id"} & set(table.c.keys())}
    assert naming == {table.name for table in metadata.sorted_tables if "owner" in table.c}
    assert "job" in naming


def test_a_lost_key_hands_on_what_it_made(keys: KeyStore, store: JobStore, add_job: AddJob) -> None:
    old = keys.create("old").key.id
    job_id = add_job(owner=old)
    keys.revoke(old)
    new = keys.create("new", adopt=old)
    assert store.get(job_id, new.key.id).id == job_id


def test_nothing_is_made_when_there_is_nobody_to_adopt_from(keys: KeyStore) -> None:
    with pytest.raises(KeyNotFound):
        keys.create("ann", adopt=Owner("key_0"))
    assert keys.list() == ()


def test_a_key_may_have_only_so_many_videos_waiting(keys: KeyStore, store: JobStore, make_job: MakeJob) -> None:
    ann, bob = keys.create("ann", max_queued=2).key.id, keys.create("bob").key.id
    first = make_job(owner=ann)
    store.add(first, max_queued=100)
    with pytest.raises(QueueFull) as refused:
        store.add(make_job(owner=ann), make_job(owner=ann), max_queued=100)
    assert (refused.value.limit, refused.value.of_key) == (2, True)
    store.add(make_job(owner=ann), max_queued=100)
    for _ in range(3):
        store.add(make_job(owner=bob), max_queued=100)
    with pytest.raises(QueueFull):
        store.add(make_job(owner=ann), max_queued=100)
    assert store.claim(first.id, WorkerId("w"), 30)
    store.add(make_job(owner=ann), max_queued=100)
    assert store.counts()[JobStatus.QUEUED] == 5
