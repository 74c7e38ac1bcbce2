"""``offsets translate``: every kind of answer, and what is refused."""

from types import SimpleNamespace

import pytest

from replicator.coordinator.translating import answer, parse_queue
from replicator.core.errors import InvalidInput, Missing
from replicator.core.offset_map import Epoch, OffsetMap
from replicator.store.port import Checkpoint, Duplicate, Hole, Progress, Run
from tests.unit.coordinator.conftest import one_way, queue

RUNS = [Run(1, 0, 100, 10), Run(1, 15, 120, 5)]
HOLES = [Hole(1, 10, 3, "filtered"), Hole(1, 13, 1, "expired"), Hole(1, 14, 1, "refused"), Hole(1, 20, 2, "loop")]


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0, ("copied", 100, "")),
        (9, ("copied", 109, "")),
        (10, ("skipped", 120, "filtered")),
        (13, ("expired", 120, "expired")),
        (14, ("skipped", 120, "refused")),
        (19, ("copied", 124, "")),
        (20, ("skipped", 125, "loop")),
        (22, ("not-yet", 125, "")),
        (10**15, ("not-yet", 125, "")),
    ],
)
def test_every_answer(offset, expected):
    assert answer(OffsetMap(RUNS, holes=HOLES, examined_through=22, scanned_through=300), offset) == expected


def test_before_the_first_copy_the_answer_is_where_it_will_stand_at_the_earliest():
    assert answer(OffsetMap([], examined_through=0, scanned_through=300), 0) == ("not-yet", 300, "")


def test_a_flow_that_began_later_skipped_what_was_before():
    assert answer(OffsetMap([Run(1, 50, 0, 5)], examined_through=55, start_offset=50), 3) == ("skipped", 0, "before-start")


def test_what_both_logs_have_expired_is_pruned():
    assert answer(OffsetMap([Run(1, 50, 70, 5)], examined_through=55, pruned_below=50), 3) == ("pruned", 70, "pruned")


def test_what_the_map_has_forgotten_is_never_guessed():
    forgotten = OffsetMap([Run(1, 10, 70, 5)], holes=[Hole(1, 0, 2, "loop")], examined_through=15, relearn_from=60)
    status, offset, reason = answer(forgotten, 5)
    assert (status, offset) == ("not-yet", None)
    assert "learned again" in reason
    assert answer(forgotten, 0) == ("skipped", None, "loop"), "the first copy after it is not known"
    assert answer(forgotten, 12) == ("copied", 72, "")


def test_the_present_history_answers_and_second_copies_do_not():
    epochs = (Epoch(1), Epoch(2, 6, 8))
    rows = [Run(1, 0, 100, 10), Run(2, 8, 110, 2)]
    copies = OffsetMap(rows, epochs=epochs, duplicates=[Duplicate(1, 5, 115, "duplicate")], examined_through=10)
    assert [answer(copies, offset) for offset in (5, 6, 8, 10)] == [
        ("copied", 105, ""), ("skipped", 110, "history"), ("copied", 110, ""), ("not-yet", 112, ""),
    ]


@pytest.mark.parametrize(("text", "parsed"), [("3", ("", 3)), ("broker-a/0", ("broker-a", 0)), ("a.b-c_1/12", ("a.b-c_1", 12))])
def test_a_queue_is_named_with_or_without_its_broker(text, parsed):
    assert parse_queue(text) == parsed


@pytest.mark.parametrize("text", ["", "x", "/3", "a/", "-1", "a/b/3", "1234567890", "٣"])
def test_what_is_no_queue(text):
    with pytest.raises(InvalidInput):
        parse_queue(text)


@pytest.fixture
async def copied(world):
    """orders on hz has one queue on each of two brokers."""
    world.memory["hz"].add_topic("orders", {"hz-a": 1, "hz-b": 1})
    await world.apply(one_way("t", "hz", "sh"))
    await world.rounds()
    for one in await world.store.acquire("w", 60.0, 10):
        saved = Progress(one.assignment_id, one.token, Checkpoint(examined_through=22), runs=RUNS, holes=HOLES)
        assert await world.store.save_progress([saved]) == set()
    return SimpleNamespace(world=world, ask=lambda *place: world.coordinator.translate("t", "hz", "sh", *place))


async def test_the_answer_names_both_queues(copied):
    rows = {one.source_queue.broker_name: one.destination_queue for one in await copied.world.assigned("hz", "sh")}
    to = rows["hz-b"]
    assert await copied.ask("orders", "hz-b/0", 11) == {
        "status": "skipped", "source_broker": "hz-b", "source_queue": 0, "destination_topic": "orders",
        "destination_broker": to.broker_name, "destination_queue": to.queue_id, "destination_offset": 120, "reason": "filtered",
    }
    assert set(rows) == {"hz-a", "hz-b"}
    assert queue("orders", "hz-b", 0) in copied.world.memory["hz"].queues("orders")


@pytest.mark.parametrize(
    ("place", "error", "said"),
    [
        (("orders", "0", 1), InvalidInput, "name one of hz-a/0, hz-b/0"),
        (("orders", "hz-a/7", 1), Missing, "queue hz-a/7 is not copied"),
        (("orders", "nobody/0", 1), Missing, "nobody/0"),
        (("pay", "0", 1), Missing, "the topic is not copied"),
        (("orders", "hz-a/0", -1), InvalidInput, "below 0"),
    ],
)
async def test_what_is_not_there_and_what_is_wrong(copied, place, error, said):
    with pytest.raises(error, match=said):
        await copied.ask(*place)


async def test_an_unknown_task_or_flow_is_missing(copied):
    for task, source, destination in (("x", "hz", "sh"), ("t", "sh", "hz"), ("t", "hz", "nobody")):
        with pytest.raises(Missing):
            await copied.world.coordinator.translate(task, source, destination, "orders", "0", 1)
