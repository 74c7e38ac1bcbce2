"""The course of a move: any order of deaths, waits and aborts leads to the same end."""

import json

from hypothesis import given
from hypothesis import strategies as st

from replicator.core.failover import (
    ABORTED,
    DONE,
    FAILBACK,
    FAILOVER,
    UNDONE_BY_ABORT,
    Course,
    Options,
    aborting,
    begin,
    finished,
    next_step,
    noted,
    started,
    steps_of,
    undone,
    waits,
)

KINDS = st.sampled_from([FAILOVER, FAILBACK])
EVENTS = st.lists(st.sampled_from(["dies", "waits", "finishes", "is noted"]), max_size=30)


def again(course: Course) -> Course:
    """Through the store."""
    return Course.from_json(json.loads(json.dumps(course.to_json())))


@given(KINDS, st.booleans(), st.booleans(), st.booleans(), EVENTS, st.integers(0, 40))
def test_every_step_is_carried_out_in_order_and_an_abort_undoes_what_was_begun(kind, is_two_way, fence, restore, events, abort_at):
    names = steps_of(kind, Options(fence_source=fence, restore=restore), is_two_way=is_two_way)
    assert len(set(names)) == len(names)
    course, carried_out = begin(names), []
    for count, event in enumerate([*events, *["finishes"] * len(names)]):
        if count == abort_at:
            break
        step = next_step(course)
        if step is None:
            break
        course = again(started(course, step.name))
        if event == "dies":
            continue
        if event == "waits":
            course = waits(course, step.name, "members")
            assert course.state == "waiting"
            assert course.reason == "members"
        elif event == "is noted":
            course = noted(course, step.name, {"at": count})
        else:
            carried_out.append(step.name)
            course = finished(course, step.name, "well")
        course = again(course)
    assert carried_out == list(names[: len(carried_out)])
    if course.state == DONE:
        assert carried_out == list(names)
        assert aborting(course, "too late") == course
        return
    begun = [one.name for one in course.steps if one.state in ("running", "done")]
    course, put_back = aborting(course, "a person said so"), []
    while (step := next_step(course)) is not None:
        put_back.append(step.name)
        course = again(undone(course, step.name, "put back"))
    assert course.state == ABORTED
    assert put_back == [name for name in reversed(begun) if name in UNDONE_BY_ABORT]
    assert not course.is_open


def test_the_fence_comes_before_what_it_keeps_from_growing():
    for kind in (FAILOVER, FAILBACK):
        names = steps_of(kind, Options(fence_source=True), is_two_way=False)
        assert names.index("fence") < names.index("catch-up") < names.index("progress") < names.index("owner")
    assert "fence" not in steps_of(FAILOVER, Options(), is_two_way=False)
    assert "mark" not in steps_of(FAILOVER, Options(), is_two_way=True)
    assert steps_of(FAILBACK, Options(), is_two_way=False)[:2] == ("open", "reverse")


def test_what_goes_back_is_on_its_way_before_catching_up_waits_for_it():
    names = steps_of(FAILBACK, Options(fence_source=True, restore=True), is_two_way=False)
    assert names.index("reverse") < names.index("restore") < names.index("fence") < names.index("catch-up")
    assert "restore" in steps_of(FAILBACK, Options(restore=True), is_two_way=True)
    assert "restore" not in steps_of(FAILOVER, Options(restore=True), is_two_way=False)


def test_a_wait_ends_when_the_step_begins_again():
    course = waits(begin(["progress"]), "progress", "members")
    course = started(course, "progress")
    assert (course.state, course.reason) == ("running", "")
    assert finished(course, "progress", "").state == DONE
