"""Which role a route needs, said at the route: ``@router.post("/x", dependencies=[OPERATE])``. ``create_app`` refuses one without.

``READ``  looks;  ``OPERATE``  works with what is declared;  ``ADMIN``  declares, deletes, gives tokens. Declaring and checking are
the administrator's because a document may name any file or variable of the coordinator's machine as a secret, and any address to
send it to.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from replicator.coordinator.access import Caller
from replicator.coordinator.api.noting import Note
from replicator.core.roles import Role

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="Of `replicator tokens create`, or REPLICATOR_TOKEN.")
_roles: dict[Any, Role] = {}


def needs(role: Role) -> Any:
    """A dependency: notes what is about to change, then refuses who has another role."""

    async def judge(
        request: Request, _given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None
    ) -> None:
        note: Note = request.state.note
        await note.begin(request)
        caller: Caller = note.caller
        if not caller.role.allows(role):
            raise HTTPException(403, f"{caller.name} has the role {caller.role}, this needs {role}")

    _roles[judge] = role
    return Depends(judge)


READ = needs(Role.READ)
OPERATE = needs(Role.OPERATE)
ADMIN = needs(Role.ADMIN)


def role_of(route: APIRoute) -> Role | None:
    """The highest it declares, its router's included."""
    found = [_roles[call] for call in _calls(route.dependant) if call in _roles]
    return max(found, key=list(Role).index, default=None)


def _calls(dependant: Dependant) -> Iterator[Callable[..., Any] | None]:
    for one in dependant.dependencies:
        yield one.call
        yield from _calls(one)


def without_role(routes: Iterable[tuple[str, APIRoute]], open_paths: Container[str]) -> list[str]:
    """``METHOD path`` of those that say no role."""
    return [
        f"{'/'.join(sorted(route.methods or ()))} {path}"
        for path, route in routes
        if path not in open_paths and role_of(route) is None
    ]
