"""The API in front of a coordinator that notes what it was asked."""

from typing import Any

import httpx
import pytest

from replicator.coordinator.api.app import create_app
from replicator.coordinator.api.context import Readiness
from replicator.coordinator.api.limits import Limits
from replicator.store.memory import MemoryStore


class NotingCoordinator:
    """Answers every operation with ``answer``, or raises ``error``."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answer: Any = {"ok": True}
        self.error: Exception | None = None

    async def leading(self) -> dict[str, Any]:
        return {}

    def __getattr__(self, operation: str):
        if operation.startswith("_"):
            raise AttributeError(operation)

        async def call(*arguments: Any) -> Any:
            self.calls.append((operation, *arguments))
            if self.error is not None:
                raise self.error
            return self.answer

        return call


class Api:
    def __init__(self, token: str | None = None, limits: Limits | None = None) -> None:
        self.coordinator = NotingCoordinator()
        self.store = MemoryStore()
        self.readiness = Readiness()
        self.app = create_app(self.coordinator, self.store, token, self.readiness, limits)

    async def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.request(method, path, **arguments)


@pytest.fixture
async def api():
    made = Api()
    await made.store.open()
    return made


@pytest.fixture
async def guarded():
    made = Api(token="right")
    await made.store.open()
    return made
