"""Which connections of a former holder a successor has to outlive."""

import pytest

from replicator.core.errors import NotConnected
from replicator.store.memory import MemoryStore
from replicator.worker.vouching import TOLD_MAX, Vouching


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def successor(store):
    return Vouching(store, "new")


async def test_all_connections_of_one_that_is_gone(store, successor):
    await store.worker_seen("left", {})
    await store.worker_left("left")
    assert await successor.exact(1, ("s@a#1", "dead!4", "left!5")) == ("dead", "left", "s@a#1")
    assert await successor.exact(1, ("s@a#1",)) == ("s@a#1",)


async def test_exactly_those_that_a_living_one_names(store, successor):
    former = Vouching(store, "old")
    await store.worker_seen("old", {"lost": former.told()})
    with pytest.raises(NotConnected, match="old.*has not let go of it yet"):
        await successor.exact(1, ("old!5",))
    former.lost(1, 4, ("old@a#1",))
    await store.worker_seen("old", {"lost": former.told()})
    with pytest.raises(NotConnected):
        await successor.exact(1, ("old!5",))
    former.lost(1, 5, ("old@a#2", "older!3"))
    former.lost(2, 9, ("old@a#7",))
    await store.worker_seen("old", {"lost": former.told()})
    assert await successor.exact(1, ("old!5",)) == ("old@a#1", "old@a#2")
    assert await successor.exact(1, ("old!4", "dead!3")) == ("dead", "old@a#1", "old@a#2")


async def test_of_itself_it_knows_without_asking(store):
    own = Vouching(store, "new")
    own.lost(1, 5, ("new@a#3",))
    store.available = False
    assert await own.exact(1, ("new!5", "s@a#1")) == ("new@a#3", "s@a#1")
    assert await own.exact(2, ("new!5",)) == (), "it never began with that one"


def test_it_tells_of_so_many_and_no_more(store):
    former = Vouching(store, "old")
    for number in range(TOLD_MAX + 3):
        former.lost(number, 1, ())
    assert set(former.told()) == {str(number) for number in range(3, TOLD_MAX + 3)}
