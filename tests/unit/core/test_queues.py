"""Queue mapping: growth moves nothing, the opposite direction is the inverse, spreads add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.queues import counts_by_broker, destination_of, ordered_refusal, plan_queue_map, plan_spread
from replicator.core.record import MessageQueue

SOURCE, DESTINATION = "srcsrc22", "dstdst33"
layouts = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 6), min_size=1)


def queues(topic: str, layout: dict[str, int]) -> list[MessageQueue]:
    return [MessageQueue(topic, broker, i) for broker, count in layout.items() for i in range(count)]


def grown(layout: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {broker: layout.get(broker, 0) + more.get(broker, 0) for broker in {*layout, *more}}


def extend(lists: dict[str, list[MessageQueue]], source: dict[str, int], destination: dict[str, int]) -> dict[str, list[MessageQueue]]:
    appended = plan_queue_map(lists, (SOURCE, queues("s", source)), (DESTINATION, queues("d", destination)))
    return {key: [*lists.get(key, []), *appended.get(key, [])] for key in (SOURCE, DESTINATION)}


@given(layouts, layouts, layouts, layouts)
def test_growth_never_changes_an_index(source, destination, more_source, more_destination):
    before = extend({}, source, destination)
    after = extend(before, grown(source, more_source), grown(destination, more_destination))
    for side in (SOURCE, DESTINATION):
        assert after[side][: len(before[side])] == before[side]
        assert len(set(after[side])) == len(after[side])
    assert set(after[SOURCE]) == set(queues("s", grown(source, more_source)))


@given(layouts, layouts)
def test_first_lists_are_sorted_whatever_order_they_were_found_in(source, destination):
    lists = plan_queue_map({}, (SOURCE, set(queues("s", source))), (DESTINATION, set(queues("d", destination))))
    assert lists[SOURCE] == sorted(queues("s", source))
    assert lists[DESTINATION] == sorted(queues("d", destination))


@given(layouts, layouts, layouts)
def test_equal_counts_make_the_opposite_direction_the_inverse(source, more, brokers):
    total = sum(source.values())
    destination = {one.broker_name: one.queue_count for one in plan_spread(total, brokers)}
    lists = extend({}, source, destination)
    wider = grown(source, more)
    again = {one.broker_name: one.queue_count for one in plan_spread(sum(wider.values()), brokers, destination)}
    for one in (lists, extend(lists, wider, again)):
        for queue in one[SOURCE]:
            there = destination_of(one[SOURCE], one[DESTINATION], queue, one[DESTINATION])
            assert destination_of(one[DESTINATION], one[SOURCE], there, one[SOURCE]) == queue


@given(layouts, layouts)
def test_every_source_queue_has_a_place_and_places_are_used_evenly(source, destination):
    lists = extend({}, source, destination)
    places = [destination_of(lists[SOURCE], lists[DESTINATION], queue, lists[DESTINATION]) for queue in lists[SOURCE]]
    uses = [places.count(queue) for queue in lists[DESTINATION]]
    assert max(uses) - min(uses) <= 1


def test_modulo_by_index():
    ours, theirs = queues("s", {"a": 5}), queues("d", {"x": 2})
    assert [destination_of(ours, theirs, queue, theirs).queue_id for queue in ours] == [0, 1, 0, 1, 0]


def test_a_destination_queue_that_went_away_is_not_chosen():
    ours, theirs = queues("s", {"a": 3}), queues("d", {"x": 3})
    assert destination_of(ours, theirs, ours[2], theirs[:2]) in theirs[:2]
    with pytest.raises(ValueError, match="exists any more"):
        destination_of(ours, theirs, ours[2], [])
    with pytest.raises(ValueError, match="no destination queue"):
        destination_of(ours, [], ours[2], theirs)


@given(st.integers(0, 40), layouts, layouts)
def test_spread_adds_up_and_never_takes_away(total, brokers, existing):
    spread = {one.broker_name: one.queue_count for one in plan_spread(total, brokers, existing)}
    assert sum(spread.values()) == max(total, sum(existing.values()))
    assert all(spread[broker] >= count for broker, count in existing.items())
    assert all(spread.values())


@given(st.integers(1, 40), layouts)
def test_a_fresh_spread_is_even(total, brokers):
    counts = {one.broker_name: one.queue_count for one in plan_spread(total, brokers)}
    full = [counts.get(broker, 0) for broker in brokers]
    assert max(full) - min(full) <= 1


def test_no_broker_is_told():
    with pytest.raises(ValueError, match="no broker"):
        plan_spread(3, [])


def test_counts_and_ordered():
    assert counts_by_broker(queues("t", {"a": 2, "b": 1})) == {"a": 2, "b": 1}
    assert ordered_refusal(4, 4) == ""
    assert "4" in ordered_refusal(4, 3)
    assert "3" in ordered_refusal(4, 3)
