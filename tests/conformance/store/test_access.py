"""Tokens of the API, and who changed what through it."""

import pytest

from replicator.store import access, memory_access
from replicator.store.access_rows import ApiChange
from replicator.store.port import Conflict


def change(caller="ci", status=None):
    return ApiChange(caller, "operate", "POST", "/api/v1/tasks/{task}/pause", "orders", {"topic": "pay"}, status)


async def test_a_token_lives_until_it_is_revoked(store):
    assert await store.add_api_token("ci", "operate", "hash-1", None)
    (living,) = await store.living_api_tokens()
    assert (living.name, living.role, living.token_hash) == ("ci", "operate", "hash-1")
    assert (living.expires_in_seconds, living.unused_seconds) == (None, None)
    assert await store.revoke_api_token("ci")
    assert not await store.revoke_api_token("ci")
    assert not await store.revoke_api_token("nobody")
    assert list(await store.living_api_tokens()) == []
    (kept,) = await store.api_tokens()
    assert kept.name == "ci"
    assert kept.revoked_at >= kept.created_at


async def test_a_name_means_one_token(store):
    assert await store.add_api_token("ci", "read", "hash-1", None)
    assert not await store.add_api_token("ci", "admin", "hash-2", None)
    await store.revoke_api_token("ci")
    assert not await store.add_api_token("ci", "admin", "hash-3", None)
    assert [row.role for row in await store.api_tokens()] == ["read"]


async def test_a_token_ends_by_itself(store):
    await store.add_api_token("a", "read", "hash-1", 2)
    await store.add_api_token("b", "read", "hash-2", 0)
    (living,) = await store.living_api_tokens()
    assert living.name == "a"
    assert living.expires_in_seconds == pytest.approx(2 * 86_400, abs=60)
    first, second = await store.api_tokens()
    assert (first.expires_at - first.created_at).days == 2
    assert second.expires_at is not None


async def test_a_token_that_ended_long_ago_is_forgotten(store, monkeypatch):
    await store.add_api_token("old", "read", "hash-1", None)
    await store.add_api_token("living", "read", "hash-2", None)
    await store.revoke_api_token("old")
    for module in (access, memory_access):
        monkeypatch.setattr(module, "API_CHANGE_DAYS_MAX", 0)
    assert await store.add_api_token("old", "admin", "hash-3", None)
    assert {row.name: row.role for row in await store.api_tokens()} == {"old": "admin", "living": "read"}


async def test_there_is_a_limit_to_tokens(store, monkeypatch):
    for module in (access, memory_access):
        monkeypatch.setattr(module, "API_TOKENS_MAX", 1)
    await store.add_api_token("a", "read", "hash-1", None)
    with pytest.raises(Conflict):
        await store.add_api_token("b", "read", "hash-2", None)


async def test_when_a_token_was_used_is_kept(store):
    await store.add_api_token("ci", "read", "hash-1", None)
    await store.api_token_used("ci")
    (row,) = await store.api_tokens()
    assert row.last_used_at >= row.created_at
    (living,) = await store.living_api_tokens()
    assert 0 <= living.unused_seconds < 60


async def test_a_change_stands_before_it_is_done_and_learns_its_end(store):
    first, second = await store.begin_api_change(change()), await store.begin_api_change(change("ops", 403))
    assert first < second
    await store.finish_api_change(first, 200)
    found = await store.api_changes()
    assert [(one.change_id, one.caller, one.status) for one in found] == [(first, "ci", 200), (second, "ops", 403)]
    assert (found[0].role, found[0].method, found[0].route, found[0].object) == (
        "operate", "POST", "/api/v1/tasks/{task}/pause", "orders",
    )
    assert found[0].request == {"topic": "pay"}
    assert found[0].at <= found[1].at
    assert [one.change_id for one in await store.api_changes(before=second)] == [first]
    assert [one.change_id for one in await store.api_changes(limit=1)] == [second]


async def test_old_changes_are_forgotten(store, monkeypatch):
    monkeypatch.setattr(access, "_PRUNE_EVERY", 1)
    for module in (access, memory_access):
        monkeypatch.setattr(module, "API_CHANGES_MAX", 2)
    ids = [await store.begin_api_change(change()) for _ in range(4)]
    assert [one.change_id for one in await store.api_changes()] == ids[2:]
