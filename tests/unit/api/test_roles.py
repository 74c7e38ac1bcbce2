"""Tokens and roles: who may do what, and for how long."""

import pytest
from fastapi import APIRouter

from replicator.coordinator import access
from replicator.coordinator.access import ENVIRONMENT, LOCAL, Callers, create_token, hash_of
from replicator.coordinator.api.app import api_routes, describe
from replicator.coordinator.api.guard import OPEN_PATHS
from replicator.coordinator.api.roles import ADMIN, READ, role_of, without_role
from replicator.core.roles import Role
from replicator.store.memory import MemoryStore
from replicator.store.port import Conflict, StoreUnavailable

PAUSE = "/api/v1/tasks/orders/pause"
ONLY_READING_POSTS = {"/api/v1/check"}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def test_each_route_answers_its_role_and_nobody_below(guarded):
    """By asking every one of them, not by what they say of themselves."""
    tokens = {role: await create_token(guarded.store, role.value, role, None) for role in Role}
    guarded.coordinator.answer = []
    asked = 0
    for path, operations in describe()["paths"].items():
        if path in OPEN_PATHS:
            continue
        for method, operation in operations.items():
            needed = Role(operation["x-role"])
            for role, token in tokens.items():
                address = path.replace("{task}", "orders").replace("{name}", "nobody")
                answer = await guarded.ask(method.upper(), address, headers=bearer(token), json={} if method == "post" else None)
                assert (answer.status_code == 403) is not role.allows(needed), (method, path, role, answer.text)
                asked += 1
            assert (await guarded.ask(method.upper(), address)).status_code == 401
    assert asked >= 3 * 30


def test_what_changes_something_needs_more_than_reading():
    for path, route in api_routes():
        if route.methods != {"GET"}:
            assert role_of(route) in ({Role.ADMIN} if path in ONLY_READING_POSTS else {Role.OPERATE, Role.ADMIN}), path
    assert {path for path, route in api_routes() if role_of(route) is None} == OPEN_PATHS


def test_a_route_without_a_role_is_found():
    router = APIRouter(dependencies=[READ])
    router.get("/a")(lambda: None)
    router.post("/b", dependencies=[ADMIN])(lambda: None)
    bare = APIRouter()
    bare.get("/c")(lambda: None)
    routes = [(route.path, route) for one in (router, bare) for route in one.routes]
    assert [role_of(route) for _, route in routes] == [Role.READ, Role.ADMIN, None]
    assert without_role(routes, ()) == ["GET /c"]
    assert without_role(routes, {"/c"}) == []


async def test_a_token_is_told_once_and_kept_as_a_hash(guarded):
    made = await guarded.ask("POST", "/api/v1/tokens", headers=bearer("right"), json={"name": "ci", "role": "operate"})
    token = made.json()["token"]
    assert (made.status_code, token.startswith("rpl_"), len(token) > 40) == (201, True, True)
    listed = await guarded.ask("GET", "/api/v1/tokens", headers=bearer("right"))
    assert token not in listed.text
    assert hash_of(token) not in listed.text
    (row,) = listed.json()
    assert (row["name"], row["role"], row["state"], row["expires_at"], row["last_used_at"]) == ("ci", "operate", "living", None, None)
    (living,) = await guarded.store.living_api_tokens()
    assert living.token_hash == hash_of(token)
    again = await guarded.ask("POST", "/api/v1/tokens", headers=bearer("right"), json={"name": "ci", "role": "read"})
    assert (again.status_code, again.json()["exit_code"]) == (409, 4)


@pytest.mark.parametrize("body", [
    {"name": "ci"}, {"name": "ci", "role": "root"}, {"name": "C I", "role": "read"}, {"name": "", "role": "read"},
    {"name": "ci", "role": "read", "expires_in_days": 0}, {"name": "ci", "role": "read", "token": "mine"},
])  # fmt: skip
async def test_a_wrong_token_request_makes_none(guarded, body):
    answer = await guarded.ask("POST", "/api/v1/tokens", headers=bearer("right"), json=body)
    assert answer.status_code == 400
    assert list(await guarded.store.api_tokens()) == []


@pytest.mark.parametrize("name", ["local", "environment", "database"])
async def test_no_token_is_called_like_those_who_have_none(guarded, name):
    answer = await guarded.ask("POST", "/api/v1/tokens", headers=bearer("right"), json={"name": name, "role": "read"})
    assert answer.status_code == 409


async def test_a_revoked_token_is_refused_at_once_where_it_was_revoked(guarded):
    token = await create_token(guarded.store, "ci", Role.READ, None)
    assert (await guarded.ask("GET", "/api/v1/status", headers=bearer(token))).status_code == 200
    assert (await guarded.ask("DELETE", "/api/v1/tokens/ci", headers=bearer("right"))).json() == {"name": "ci", "result": "revoked"}
    assert (await guarded.ask("GET", "/api/v1/status", headers=bearer(token))).status_code == 401
    again = await guarded.ask("DELETE", "/api/v1/tokens/ci", headers=bearer("right"))
    assert (again.status_code, again.json()["exit_code"]) == (404, 3)
    (row,) = (await guarded.ask("GET", "/api/v1/tokens", headers=bearer("right"))).json()
    assert row["state"] == "revoked"


async def test_on_loopback_a_token_is_not_needed_but_one_that_is_brought_counts(api):
    token = await create_token(api.store, "grafana", Role.READ, None)
    assert (await api.ask("POST", PAUSE)).status_code == 200
    assert (await api.ask("POST", PAUSE, headers=bearer(token))).status_code == 403
    assert (await api.ask("GET", "/api/v1/status", headers=bearer(token))).status_code == 200
    assert (await api.ask("GET", "/api/v1/status", headers=bearer("wrong"))).status_code == 401


class Clocked:
    def __init__(self, token="right"):
        self.now = 1000.0
        self.store = MemoryStore(lambda: self.now)
        self.callers = Callers(self.store, token, lambda: self.now)
        self.reads = 0
        read = self.store.living_api_tokens

        async def counted():
            self.reads += 1
            return await read()

        self.store.living_api_tokens = counted

    async def name(self, token):
        found = await self.callers.of(f"Bearer {token}".encode())
        return found and found.name


async def test_tokens_are_read_again_after_seconds_and_not_with_each_request():
    one = Clocked()
    assert (await one.callers.of(b"bearer right"), one.reads) == (ENVIRONMENT, 0)
    assert (await Clocked(None).callers.of(b"")) == LOCAL
    token = await create_token(one.store, "ci", Role.READ, None)
    for _ in range(10):
        assert await one.name(token) == "ci"
        assert await one.name("other") is None
    assert one.reads == 1
    await one.store.revoke_api_token("ci")
    one.now += access.TOKENS_FRESH_SECONDS - 0.1
    assert await one.name(token) == "ci"
    one.now += 0.2
    assert await one.name(token) is None
    assert one.reads == 2


async def test_a_token_expires_to_the_second_even_while_the_database_is_away():
    one = Clocked()
    token = await create_token(one.store, "ci", Role.READ, 1)
    lasting = await create_token(one.store, "ops", Role.OPERATE, None)
    assert await one.name(token) == "ci"
    one.store.available = False
    one.now += 86_399
    assert await one.name(token) == "ci"
    one.now += 2
    assert await one.name(token) is None
    assert await one.name(lasting) == "ops"


async def test_before_the_tokens_were_ever_read_only_the_environments_is_good():
    one = Clocked()
    one.store.available = False
    assert await one.name("right") == "environment"
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await one.name("other")


async def test_an_outage_is_told_as_one(guarded):
    guarded.store.available = False
    answer = await guarded.ask("GET", "/api/v1/status", headers=bearer("rpl_x"))
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")


async def test_its_use_is_noted_once_an_hour():
    one = Clocked()
    token = await create_token(one.store, "ci", Role.READ, None)
    used = []
    note = one.store.api_token_used

    async def noted(name):
        used.append(one.now)
        await note(name)

    one.store.api_token_used = noted
    for seconds in (0, 1, 1000, 2500, 200):
        one.now += seconds
        await one.name(token)
    assert used == [1000.0, 4701.0]
    other = Callers(one.store, None, lambda: one.now)
    one.now += 10
    assert await other.of(f"Bearer {token}".encode()) is not None
    assert len(used) == 2


@pytest.mark.parametrize("header", [b"Basic x", b"Bearer", b"Bearer ", b"x", b"Bearer \xff\xfe", b"bearer right x"])
async def test_what_is_no_token_is_nobody(header):
    assert await Clocked().callers.of(header) is None


async def test_names_are_not_given_twice():
    store = MemoryStore()
    await create_token(store, "ci", Role.READ, None)
    with pytest.raises(Conflict, match="ci is taken"):
        await create_token(store, "ci", Role.READ, None)
