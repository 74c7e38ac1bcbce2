"""Starts of a group against a world where it is known, message by message, what the group has processed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.offset_map import Absent, ContradictoryMap, Epoch, Found, OffsetMap
from replicator.core.progress import Feeding, NoStart, Start, WayBack, WrittenQueue
from replicator.core.record import MessageQueue, OffsetRange
from replicator.store.port import Duplicate, Hole, Run
from tests.unit.core.examples import examples
from tests.unit.core.progress_world import (
    ONE_WAY_FOLDED,
    ONE_WAY_FROM_TWO,
    THREE,
    TWO_WAY,
    TWO_WAY_FOLDED,
    TWO_WAY_UNFED,
    Message,
    World,
    a0,
    b0,
    c0,
)

TOPOLOGIES = (ONE_WAY_FOLDED, ONE_WAY_FROM_TWO, TWO_WAY, TWO_WAY_FOLDED, TWO_WAY_UNFED, THREE)

which = st.integers(0, 11)
some = st.integers(1, 5)
ACTIONS = {
    "produce": st.tuples(st.just("produce"), which, some, st.integers(0, 5).map(lambda n: n == 0)),
    "copy": st.tuples(st.just("copy"), which, some),
    "save": st.tuples(st.just("save"), which),
    "consume": st.tuples(st.just("consume"), which, some),
    "move": st.tuples(st.just("move"), which),
    "duplicate": st.tuples(st.just("duplicate"), which, st.integers(0, 6)),
    "expire": st.tuples(st.just("expire"), which, st.integers(1, 3)),
    "lose_tail": st.tuples(st.just("lose_tail"), which, some),
    "restore": st.tuples(st.just("restore"), which),
}
COMMON = ("produce", "produce", "copy", "copy", "copy", "copy", "consume", "consume", "save", "move")
LOSSES = ("lose_tail", "restore")
TWO_SIDES = (ONE_WAY_FOLDED, TWO_WAY, TWO_WAY_FOLDED, TWO_WAY_UNFED)


def worlds(*rare: str, topologies=TOPOLOGIES, moves: bool = True) -> st.SearchStrategy[World]:
    names = [name for name in (*COMMON, *rare) if moves or name != "move"]
    actions = st.lists(st.sampled_from(names).flatmap(ACTIONS.__getitem__), min_size=15, max_size=45)

    @st.composite
    def build(draw: st.DrawFn) -> World:
        world = World(draw(st.sampled_from(topologies)))
        for name, *arguments in draw(actions):
            world.do(name, *arguments)
        return world

    return build()


def planned(world: World):
    for where in world.logs:
        if where.broker_name != world.owner:
            yield where, world.plan(where)


def is_shown(world: World, where: MessageQueue, record: int, passed: int) -> bool:
    """Do the rows as saved show that the group has processed this record (or that nothing stands there)? One record at a time."""
    if record < passed:
        return True
    for one in world.assignments:
        if one.destination == where and one.source.broker_name == world.owner:
            mapped, found = one.saved.build(), one.saved.build().to_source(record)
            if isinstance(found, Found):
                views = [(e.number, mapped.to_destination(found.offset, e.number)) for e in mapped.epochs]
                last = max(number for number, there in views if isinstance(there, Found) and there.epoch == found.epoch)
                reached = world.past.get((one.source, last), 0) if found.ghost else world.offsets.get(one.source, 0)
                first = mapped.to_destination(found.offset, found.epoch)
                assert isinstance(first, Found)
                is_shown_here = found.offset < reached or first.offset < passed
                return is_shown_here or (found.ghost and is_shown_where_sent_back(world, where, first.offset))
        if one.source == where and one.destination.broker_name == world.owner:
            answer = one.saved.build().to_destination(record)
            if isinstance(answer, Found):
                return answer.offset < world.offsets.get(one.destination, 0)
            if answer == Absent("expired"):
                return True
    return False


def is_shown_where_sent_back(world: World, where: MessageQueue, record: int) -> bool:
    """As above, by the place that a message lost on the owning side has there again."""
    answers = [
        (one.saved.build().to_destination(record), world.offsets.get(one.destination, 0))
        for one in world.assignments if one.source == where and one.destination.broker_name == world.owner
    ]  # fmt: skip
    return any(isinstance(there, Found) and there.offset < reached for there, reached in answers)


def copied_to_owner(world: World) -> set[Message]:
    return {message for one in world.queues(world.owner) for message in world.logs[one]}


def may_have_been_elsewhere(world: World) -> bool:
    """What a group processed on a third side counts only once it has passed it on the side that owns its progress."""
    return len(world.clusters) > 2 and any(name == "move" for name, *_ in world.history)


@examples(150)
@given(worlds("duplicate", "expire", *LOSSES))
def test_nothing_is_ever_skipped_and_the_bounds_hold(world):
    """Whatever the maps lag behind."""
    answers = list(planned(world))
    processed = set(world.processed)
    before = {where: len(world.logs[where]) for where, _ in answers}
    world.finish()
    for where, start in answers:
        if isinstance(start, NoStart):
            continue
        log = world.logs[where]
        assert world.lowest[where] <= start.offset <= before[where]
        assert all(message in processed for message in log[world.lowest[where] : start.offset])
        again = sum(message in processed for message in log[start.offset :])
        assert start.seen_again <= again
        assert again <= start.seen_again_max or may_have_been_elsewhere(world)


@examples(150)
@given(worlds("duplicate", "expire", "lose_tail", topologies=TWO_SIDES))
def test_with_complete_maps_the_start_is_the_latest_and_the_count_exact(world):
    world.save_all()
    for where, start in planned(world):
        if isinstance(start, NoStart):
            continue
        log, lowest, size = world.logs[where], world.lowest[where], len(world.logs[where])
        safe = [begin for begin in range(lowest, size + 1) if all(message in world.processed for message in log[lowest:begin])]
        assert start.offset == max(safe)
        assert start.seen_again == sum(message in world.processed for message in log[start.offset :])
        passed = world.offsets.get(where, 0)
        from_there = [message for message in log[passed:lowest] if message.born != where or message in copied_to_owner(world)]
        assert start.gone == sum(message not in world.processed for message in from_there)


@examples(120)
@given(worlds("duplicate", "expire", *LOSSES, topologies=TWO_SIDES))
def test_the_start_is_the_first_record_that_the_rows_at_hand_do_not_show_as_processed(world):
    """Maps lag as they like: no later start is safe, since that record may be unprocessed for all anybody knows."""
    for where, start in planned(world):
        if isinstance(start, Start):
            lowest, size, passed = world.lowest[where], len(world.logs[where]), world.offsets.get(where, 0)
            open_records = [record for record in range(lowest, size) if not is_shown(world, where, record, passed)]
            assert start.offset == min(open_records, default=size)


@examples(150)
@given(worlds("duplicate", *LOSSES, *LOSSES, "restore", topologies=[TWO_WAY, TWO_WAY_FOLDED]))
def test_messages_sent_back_are_judged_by_either_of_their_places(world):
    """Losses and what is done about them more often than above."""
    for index in range(len(world.assignments)):
        world.do("copy", index, 10_000)
        world.do("restore", index)
        world.do("copy", index, 3)
    test_nothing_is_ever_skipped_and_the_bounds_hold.hypothesis.inner_test(world)


@examples(100)
@given(worlds("duplicate", "expire", topologies=[THREE], moves=False))
def test_three_clusters_with_complete_maps(world):
    """Without changes of history: what a third cluster lost is never counted as processed."""
    world.save_all()
    for where, start in planned(world):
        if isinstance(start, NoStart):
            continue
        log, lowest, size = world.logs[where], world.lowest[where], len(world.logs[where])
        safe = [begin for begin in range(lowest, size + 1) if all(message in world.processed for message in log[lowest:begin])]
        assert start.offset == max(safe)
        assert start.seen_again == sum(message in world.processed for message in log[start.offset :])


@examples(80)
@given(worlds("duplicate", "expire", *LOSSES))
def test_a_start_that_is_called_exact_is(world):
    world.save_all()
    answers = list(planned(world))
    processed = set(world.processed)
    world.finish()
    for where, start in answers:
        if isinstance(start, Start) and start.exact and not may_have_been_elsewhere(world):
            assert start.seen_again == sum(message in processed for message in world.logs[where][start.offset :])


@examples(60)
@given(worlds("duplicate", topologies=[ONE_WAY_FOLDED]))
def test_one_way_records_born_at_the_destination_can_be_let_go(world):
    world.save_all()
    start = world.plan(b0, local_holds=False)
    if world.owner == "a" and isinstance(start, Start):
        log = world.logs[b0]
        assert all(message in world.processed for message in log[: start.offset] if message.born != b0)
        unprocessed = [offset for offset, message in enumerate(log) if message not in world.processed and message.born != b0]
        assert start.offset <= min(unprocessed, default=len(log))
        known = min(one.saved.build().known_through for one in world.assignments)
        assert start.offset >= min([*unprocessed, known, len(log)])


@examples(60)
@given(worlds("duplicate", "expire", topologies=[TWO_WAY, TWO_WAY_FOLDED]))
def test_a_group_that_goes_and_comes_back_without_consuming_sees_nothing_twice_that_it_need_not(world):
    """The offset it left is the floor of where it comes back to."""
    home = dict(world.offsets)
    first = world.owner
    world.save_all()
    world.move(1 if first == "a" else 0)
    world.move(0 if first == "a" else 1)
    if world.owner == first:
        assert all(world.offsets[where] >= offset for where, offset in home.items() if where.broker_name == first)


def one_feeder(copied: int, *, examined: int | None = None) -> OffsetMap:
    return OffsetMap([Run(1, 0, 100, copied)], examined_through=copied if examined is None else examined)


def test_one_feeder_translates_without_a_message_seen_again():
    written = WrittenQueue([Feeding("a", one_feeder(50), a0)])
    answer = written.start(OffsetRange(100, 150), {a0: 20})
    assert answer == Start(120, f"offset 20 of {a0} is not processed", 0, 0, 0)
    assert answer.exact


def test_a_group_ahead_of_the_copies_starts_behind_the_last_known_one():
    written = WrittenQueue([Feeding("a", one_feeder(50), a0)])
    answer = written.start(OffsetRange(100, 170), {a0: 80})
    assert answer == Start(150, "a record that no map lists yet", 0, 30, 0)
    at_the_end = written.start(OffsetRange(100, 150), {a0: 50})
    assert at_the_end == Start(150, "the end of the queue", 0, 0, 0)


def test_messages_that_expired_at_the_destination_are_counted_as_gone():
    """Nothing can be written that would let the group see them there: a person has to know before it moves."""
    written = WrittenQueue([Feeding("a", one_feeder(50), a0)])
    assert written.start(OffsetRange(130, 150), {a0: 20}) == Start(130, f"offset 30 of {a0} is not processed", 0, 0, 10)


def test_a_feeding_queue_without_progress_is_refused():
    folded = WrittenQueue([Feeding("a", one_feeder(50), a0), Feeding("c", OffsetMap([Run(1, 0, 150, 3)], examined_through=3), c0)])
    refused = folded.start(OffsetRange(100, 153), {a0: 20})
    assert isinstance(refused, NoStart)
    assert str(c0) in refused.reason
    lost = WrittenQueue([Feeding("orders of c", one_feeder(50), None)]).start(OffsetRange(100, 150), {})
    assert isinstance(lost, NoStart)
    assert "orders of c" in lost.reason


def test_a_feeding_queue_that_never_had_a_message_asks_for_no_progress():
    folded = WrittenQueue([Feeding("a", one_feeder(50), a0), Feeding("c", OffsetMap([], examined_through=0), c0)])
    assert folded.start(OffsetRange(100, 150), {a0: 20}) == Start(120, f"offset 20 of {a0} is not processed", 0, 0, 0)


def test_a_local_message_that_was_filtered_on_its_way_back_holds_the_start():
    back = OffsetMap([Run(1, 1, 7, 2)], holes=[Hole(1, 0, 1, "filtered"), Hole(1, 3, 3, "loop")], examined_through=6)
    own = OffsetMap([Run(1, 0, 3, 3)], examined_through=3)
    written = WrittenQueue([Feeding("a", own, a0)], WayBack(back, a0))
    answer = written.start(OffsetRange(0, 6), {a0: 9})
    assert answer == Start(0, "a message born here that was not copied back: filtered", 5, 11, 0)
    assert written.start(OffsetRange(0, 6), {a0: 9}, passed_through=1) == Start(6, "the end of the queue", 0, 6, 0)


def test_a_loop_that_no_map_explains_holds():
    back = OffsetMap([], holes=[Hole(1, 0, 3, "loop")], examined_through=3)
    answer = WrittenQueue([Feeding("a", OffsetMap([], examined_through=0), a0)], WayBack(back, a0)).start(OffsetRange(0, 3), {a0: 9})
    assert isinstance(answer, Start)
    assert (answer.offset, answer.held_by) == (0, "a copy that no map lists yet")


def test_ghosts_hold_until_their_epoch_is_accounted_for():
    epochs = (Epoch(1), Epoch(2, 10, 10))
    copies = OffsetMap([Run(1, 0, 0, 20), Run(2, 10, 20, 5)], epochs=epochs, examined_through=15)
    written = WrittenQueue([Feeding("a", copies, a0)])
    assert written.start(OffsetRange(0, 25), {a0: 15}).offset == 10
    assert written.start(OffsetRange(0, 25), {a0: 15}, past={(a0, 1): 13}).offset == 13
    assert written.start(OffsetRange(0, 25), {a0: 12}, past={(a0, 1): 20}).offset == 22


RESTORING = (Epoch(1), Epoch(2, 10, 4))
"""Ten records were read before; of them, only what is chosen from 4 on goes back."""


def lost_and_sent_back() -> tuple[OffsetMap, OffsetMap]:
    """Offsets 4 to 6 of a, copied to 4 to 6 of b, were lost; three new messages took them, copied to 7 to 9, and then those that were
    lost came back, to 7 to 9 of a."""
    diverged = (Epoch(1), Epoch(2, 4, 4))
    there = OffsetMap([Run(1, 0, 0, 7), Run(2, 4, 7, 3)], holes=[Hole(2, 7, 3, "loop")], epochs=diverged, examined_through=10)
    back = OffsetMap([Run(2, 4, 7, 3)], holes=[Hole(1, 0, 10, "loop")], epochs=RESTORING, examined_through=10)
    return there, back


def test_a_message_sent_back_is_processed_where_its_copy_was():
    """The group owns b, and has passed 6: the first two of those that came back are processed, of the third nobody knows."""
    there, back = lost_and_sent_back()
    assert [back.to_destination(offset) for offset in (3, 4, 6)] == [Absent("loop"), Found(7, 1), Found(9, 1)]
    assert list(back.restored) == [(4, 7)]
    written = WrittenQueue([Feeding("b", back, b0)], WayBack(there, b0))
    answer = written.start(OffsetRange(0, 10), {b0: 6}, passed_through=4)
    assert answer == Start(4, f"offset 7 of {b0} is not processed", 2, 3, 0)
    assert written.start(OffsetRange(0, 10), {b0: 10}) == Start(10, "the end of the queue", 0, 0, 0)


def test_a_copy_of_a_message_sent_back_is_processed_at_either_place():
    """The group owns a. What it had passed there before the loss counts, and so does what it passed when it had come back."""
    there, back = lost_and_sent_back()
    written = WrittenQueue([Feeding("a", there, a0)], WayBack(back, a0))
    bounds = OffsetRange(0, 10)
    assert written.start(bounds, {a0: 10}) == Start(10, "the end of the queue", 0, 0, 0)
    assert written.start(bounds, {a0: 8}).offset == 5, "only the first of them is passed where it came back"
    assert written.start(bounds, {a0: 8}, past={(a0, 1): 6}).offset == 6
    assert written.start(bounds, {a0: 7}, past={(a0, 1): 7}).offset == 10


def test_a_third_cluster_whose_changes_of_history_are_not_known_alike_is_not_joined():
    epochs = (Epoch(1), Epoch(2, 3, 3))
    here = OffsetMap([Run(1, 0, 0, 3), Run(2, 3, 3, 3)], epochs=epochs, examined_through=6)
    there = OffsetMap([Run(1, 0, 40, 6)], examined_through=6)
    answer = WrittenQueue([Feeding("c", here, a0, there)]).start(OffsetRange(0, 6), {a0: 46})
    assert isinstance(answer, Start)
    assert answer.offset == 3
    assert answer.seen_again_max >= 3


def test_two_maps_that_claim_one_record_are_refused():
    with pytest.raises(ContradictoryMap, match="offset 100 "):
        WrittenQueue([Feeding("a", one_feeder(5), a0), Feeding("c", one_feeder(5), c0)])


def test_a_second_copy_of_a_message_passed_here_is_not_held():
    """The group processed offset 0 here, at 100; on the owning side it is not counted."""
    copies = OffsetMap([Run(1, 0, 100, 2)], duplicates=[Duplicate(1, 0, 102, "duplicate")], examined_through=2)
    written = WrittenQueue([Feeding("a", copies, a0)])
    assert written.start(OffsetRange(100, 103), {a0: 0}, passed_through=102) == Start(103, "the end of the queue", 0, 0, 0)
    assert written.start(OffsetRange(100, 103), {a0: 0}, passed_through=101).offset == 101


def test_a_second_copy_of_a_processed_message_is_seen_again():
    """100 and 101 are offsets 0 and 1, 102 is offset 2, 103 is 0 once more: it comes after what is not processed yet."""
    copies = OffsetMap([Run(1, 0, 100, 3)], duplicates=[Duplicate(1, 0, 103, "duplicate")], examined_through=3)
    answer = WrittenQueue([Feeding("a", copies, a0)]).start(OffsetRange(100, 104), {a0: 2})
    assert answer == Start(102, f"offset 2 of {a0} is not processed", 1, 1, 0)
