"""Hearing of changes: one connection listens for all watches of this process, and is made anew when it is lost.

Notices save time and nothing else: whoever watches looks by itself after a while, too.
"""

from __future__ import annotations

import asyncio
from weakref import WeakSet

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

CHANNEL = "replicator_shares"


class NoticeWatch:
    def __init__(self, notices: Notices) -> None:
        self.event = asyncio.Event()
        self._notices = notices

    async def changed(self, timeout_seconds: float) -> None:
        await self._notices.listen()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.event.wait()
        except TimeoutError:
            return
        finally:
            self.event.clear()


class Notices:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._watches: WeakSet[NoticeWatch] = WeakSet()
        self._connecting = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._lost = True

    def watch(self) -> NoticeWatch:
        made = NoticeWatch(self)
        self._watches.add(made)
        return made

    async def listen(self) -> None:
        """Makes sure of the connection, if the database can be reached; without it watches see changes at their own pace."""
        if not self._lost:
            return
        async with self._connecting:
            if not self._lost:
                return
            await self.close()
            try:
                # Kept out of the pool, and in no transaction, for as long as it lives.
                connection = await self._engine.connect()
            except (SQLAlchemyError, OSError):
                return  # Whoever watches asks the database next, and says what is wrong with it.
            try:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                driver.add_termination_listener(self._terminated)
                await driver.add_listener(CHANNEL, self._heard)
            except (SQLAlchemyError, OSError):
                await connection.invalidate()
                await connection.close()
                return
            self._connection, self._lost = connection, False
            self._wake()

    def _heard(self, *_what: object) -> None:
        self._wake()

    def _terminated(self, *_what: object) -> None:
        self._lost = True

    def _wake(self) -> None:
        for watch in self._watches:
            watch.event.set()

    async def close(self) -> None:
        connection, self._connection, self._lost = self._connection, None, True
        if connection is not None:
            await connection.invalidate()
            await connection.close()
