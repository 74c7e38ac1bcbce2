"""Whose progress counts: cases by hand, and worlds where the truth about who consumes is known."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.ownership import (
    IDLE_INTERVALS_MIN,
    WRITES_KEPT_MAX,
    Decision,
    Observation,
    Ownership,
    SideSeen,
    observe,
    settle,
)
from tests.unit.core.examples import examples


def look(state: Ownership, follows: bool = True, **sides) -> tuple[Ownership, Decision]:
    """Each side: an offset of its one queue, None where unreachable, or a SideSeen."""
    seen = {}
    for name, side in sides.items():
        if not isinstance(side, SideSeen):
            side = SideSeen(None if side is None else {"q": side}, members=False)
        seen[name] = side
    return observe(state, Observation(seen, follows))


def run(state: Ownership, steps) -> tuple[Ownership, Decision]:
    for step in steps:
        state, decision = look(state, **step)
    return state, decision


IDLE = [{"a": 10, "b": 5}] * (IDLE_INTERVALS_MIN + 1)


def owned_by_a() -> Ownership:
    state, decision = run(Ownership(), [{"a": 8, "b": 5}, {"a": 9, "b": 5}, {"a": 10, "b": 5}])
    assert decision.owner == "a"
    return state


def test_the_side_that_moves_owns_and_the_idle_one_may_be_written():
    state, decision = run(owned_by_a(), IDLE)
    assert (decision.status, decision.owner, decision.write) == ("owned", "a", ("b",))


def test_movement_is_believed_the_second_time():
    state, decision = run(Ownership(), [{"a": 8, "b": 5}, {"a": 9, "b": 5}])
    assert decision.status == "undecided"
    state, decision = look(state, a=9, b=5)
    assert (decision.owner, decision.moved) == ("a", ("a",))


def test_a_reading_that_falls_back_is_no_movement():
    _, decision = run(Ownership(), [{"a": 8, "b": 5}, {"a": 9, "b": 5}, {"a": 8, "b": 5}, {"a": 9, "b": 5}, {"a": 8, "b": 5}])
    assert decision.status == "undecided"


def test_members_own_without_moving():
    state, decision = look(Ownership(), a=SideSeen({"q": 1}, members=True), b=SideSeen({"q": 1}, members=False))
    assert decision.owner == "a"


def test_members_on_both_sides_decide_nothing():
    _, decision = look(Ownership(), a=SideSeen({"q": 1}, members=True), b=SideSeen({"q": 1}, members=True))
    assert decision.status == "undecided"


def test_the_only_side_with_progress_owns_it_if_all_are_seen():
    assert look(Ownership(), a=7, b=SideSeen({}, members=False))[1].owner == "a"
    assert look(Ownership(), a=7, b=0)[1].owner == "a"
    assert look(Ownership(), a=7, b=None)[1].owner is None
    assert look(Ownership(), a=7, b=3)[1].owner is None


def test_where_nobody_asked_for_members_the_decision_asks():
    steps = [{"a": 10, "b": SideSeen({"q": 5})}] * IDLE_INTERVALS_MIN
    state, _ = run(owned_by_a(), steps)
    _, decision = look(state, a=10, b=SideSeen({"q": 5}))
    assert (decision.write, decision.ask) == ((), ("b",))
    _, decision = look(state, a=SideSeen({"q": 10}, members=True), b=SideSeen({"q": 5}, members=True))
    assert (decision.owner, decision.write, decision.ask) == ("a", (), ())


def test_members_take_over_from_a_side_that_is_idle():
    state, _ = run(owned_by_a(), IDLE)
    _, decision = look(state, a=10, b=SideSeen({"q": 5}, members=True))
    assert (decision.owner, decision.write) == ("b", ("a",))


@pytest.mark.parametrize("arrives", ["at once", "later", "never"])
def test_our_own_write_is_no_movement(arrives):
    state, _ = run(owned_by_a(), IDLE)
    first = 9 if arrives == "at once" else 5
    state, _ = look(state, a=10, b=SideSeen({"q": first}, members=False, written={"q": 9}))
    for _ in range(3):
        state, decision = look(state, a=10, b=5 if arrives == "never" else 9)
        assert (decision.owner, decision.moved, decision.write) == ("a", (), ("b",))
    state, _ = look(state, a=10, b=11)
    _, decision = look(state, a=10, b=11)
    assert decision.moved == ("b",)


def test_a_value_that_is_neither_the_old_one_nor_ours_is_movement():
    """A consumer that is online puts its own value over ours."""
    state, _ = run(owned_by_a(), IDLE)
    state, _ = look(state, a=10, b=SideSeen({"q": 7}, members=False, written={"q": 9}))
    _, decision = look(state, a=10, b=7)
    assert decision.moved == ("b",)


def test_unseen_writes_are_not_remembered_without_end():
    state = owned_by_a()
    for written in range(100, 200):
        state, decision = look(state, a=10, b=SideSeen({"q": 5}, members=False, written={"q": written}))
    assert len(state.sides["b"].written["q"]) == WRITES_KEPT_MAX
    state, _ = look(state, a=10, b=199)
    assert state.sides["b"].written == {}


def test_a_reset_backwards_by_a_person_changes_nothing():
    state, _ = run(owned_by_a(), IDLE)
    _, decision = look(state, a=2, b=5)
    assert (decision.owner, decision.moved, decision.write) == ("a", (), ("b",))


def test_ownership_changes_after_idle_intervals_only():
    state = owned_by_a()
    state, _ = run(state, IDLE)
    state, decision = look(state, a=10, b=6)
    assert (decision.owner, decision.write) == ("a", ())
    _, decision = look(state, a=10, b=7)
    assert (decision.owner, decision.write) == ("b", ("a",))


def test_an_owner_with_members_stays_although_another_moves():
    steps = [{"a": SideSeen({"q": 10}, members=True), "b": 5 + n} for n in range(8)]
    _, decision = run(owned_by_a(), steps)
    assert (decision.owner, decision.write, decision.ask) == ("a", (), ())


def test_both_moving_in_one_period_is_a_split_until_a_person_settles_it():
    state, decision = run(owned_by_a(), [{"a": 11, "b": 6}, {"a": 11, "b": 6}])
    assert (decision.status, decision.write, decision.ask) == ("split", (), ())
    state, decision = run(state, [{"a": 11, "b": 6}] * 20)
    assert decision.status == "split"
    state = settle(state, "b")
    state, decision = run(state, [{"a": 11, "b": 6}] * (IDLE_INTERVALS_MIN + 1))
    assert (decision.status, decision.owner, decision.write) == ("owned", "b", ("a",))


def test_a_side_that_cannot_be_reached_keeps_what_it_owns():
    """Clients fail over at once: that is no split, and the dead side is not written when it comes back moved."""
    state, decision = run(owned_by_a(), [{"a": None, "b": 5 + n} for n in range(10)])
    assert (decision.status, decision.owner, decision.write, decision.ask) == ("owned", "a", (), ())
    state, decision = look(state, a=12, b=16)
    assert (decision.owner, decision.write) == ("a", ())
    steps = [{"a": 12, "b": 17 + n} for n in range(IDLE_INTERVALS_MIN)]
    state, decision = run(state, steps)
    assert (decision.status, decision.owner, decision.write) == ("owned", "b", ("a",))


def test_a_gap_in_our_own_observation_is_nobodys_movement():
    state, decision = look(owned_by_a(), follows=False, a=50, b=60)
    assert (decision.status, decision.moved, decision.write) == ("owned", (), ())
    _, decision = look(state, a=50, b=60)
    assert decision.moved == ()


def test_a_first_commit_is_movement():
    state, _ = look(Ownership(), a=5, b=SideSeen({}, members=False))
    state, _ = run(state, [{"a": 5, "b": 3}, {"a": 5, "b": 3}])
    assert state.sides["b"].moved_ago == 0


@dataclass
class Truth:
    """What really happens: each side's stored offset, and our writes on their way there."""

    offsets: dict[str, int] = field(default_factory=lambda: {"a": 5, "b": 3, "c": 2})
    under_way: dict[str, list[int]] = field(default_factory=lambda: {"a": [], "b": [], "c": []})


sides = st.sampled_from(["a", "b", "c"])
steps = st.fixed_dictionaries({
    "consume": st.dictionaries(sides, st.integers(1, 3), max_size=2),
    "unreachable": st.sets(sides, max_size=1),
    "members": st.dictionaries(sides, st.sampled_from([None, False, True]), max_size=3),
    "follows": st.sampled_from([True] * 9 + [False]),
    "arrives": st.booleans(),
})


def live(step, state: Ownership, truth: Truth, decision: Decision | None, members) -> tuple[Ownership, Decision, dict[str, SideSeen]]:
    """One interval: what was decided is written, what is under way may arrive, the group consumes, and all is looked at."""
    written = {}
    for name in decision.write if decision else ():
        if name not in step["unreachable"]:
            written[name] = truth.offsets["a"] + 100
            truth.under_way[name].append(written[name])
    for name, values in truth.under_way.items():
        if values and step["arrives"]:
            truth.offsets[name] = values[-1]
            values.clear()
    for name, count in step["consume"].items():
        truth.offsets[name] += count
    seen = {
        name: SideSeen(
            None if name in step["unreachable"] else {"q": offset}, members(name), {"q": written[name]} if name in written else {},
        )
        for name, offset in truth.offsets.items()
    }
    return (*observe(state, Observation(seen, step["follows"])), seen)


@examples(150)
@given(st.lists(steps, min_size=5, max_size=40))
def test_where_only_one_side_consumes_nothing_we_do_takes_it_away(made):
    """Our writes arrive at once, later or never; sides come and go."""
    state, truth, decision = Ownership(), Truth(), None
    for step in made:
        step = {**step, "consume": {"a": 1} if step["consume"] else {}}
        state, decision, _ = live(step, state, truth, decision, lambda name: False)
        assert decision.status != "split"
        assert decision.owner in (None, "a")
        assert "a" not in decision.write


@examples(200)
@given(st.lists(steps, min_size=5, max_size=40), st.booleans())
def test_what_holds_whatever_happens(made, persists):
    state, truth, decision = Ownership(), Truth(), None
    idle = {"a": 0, "b": 0, "c": 0}
    """Intervals each side has really been idle for while we looked."""
    for step in made:
        before = state
        state, decision, seen = live(step, state, truth, decision, lambda name, step=step: step["members"].get(name))
        for name in idle:
            is_idle = name not in step["unreachable"] and step["follows"] and not step["consume"].get(name) and not seen[name].members
            idle[name] = idle[name] + 1 if is_idle else 0
        may_be_written = {*decision.write, *decision.ask}
        assert decision.owner not in may_be_written
        assert not may_be_written & step["unreachable"]
        assert all(idle[name] >= IDLE_INTERVALS_MIN for name in may_be_written)
        assert all(seen[name].members is False for name in decision.write)
        assert all(seen[name].members is None for name in decision.ask)
        if before.split:
            assert decision.status == "split"
            assert may_be_written == set()
        if before.owner is not None and state.owner != before.owner:
            assert before.owner not in step["unreachable"]
            assert idle[before.owner] >= IDLE_INTERVALS_MIN
        stored = Ownership.from_json(json.loads(json.dumps(state.to_json())))
        assert stored == state
        if persists:
            state = stored


def test_what_moved_before_a_person_spoke_is_no_movement_after_it():
    state = settle(owned_by_a(), "a", {"b": {"q": 9}})
    state, decision = look(state, a=10, b=9)
    assert not state.sides["b"].raised
    assert decision.owner == "a"
    state, _ = look(state, a=10, b=12)
    assert state.sides["b"].raised == {"q": 12}


def test_a_queue_that_is_missing_for_a_while_has_not_moved():
    state, _ = run(owned_by_a(), IDLE)
    for _ in range(2):
        state, decision = look(state, a=10, b=SideSeen({}, members=False))
    state, decision = run(state, IDLE)
    assert not state.sides["b"].raised
    assert (decision.owner, decision.moved, decision.write) == ("a", (), ("b",))
