"""The course of a move of consumers from one cluster to another: which step comes next, as pure functions.

A course is a list of steps, each carried out by somebody else, each idempotent: a step that was begun and not seen to end is begun
again. So a course can be saved after every change, read by another process, and gone on with, wherever the first one died.

    running   a step is under way
    waiting   a step waits for something outside, and says for what
    aborting  what can be undone is undone, newest first
    done, aborted, failed   ended; nothing changes them any more
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

FAILOVER, FAILBACK = "failover", "failback"
RUNNING, WAITING, ABORTING, DONE, ABORTED, FAILED = "running", "waiting", "aborting", "done", "aborted", "failed"
ENDED = frozenset({DONE, ABORTED, FAILED})

OPEN, REVERSE, RESTORE, FENCE, CATCH_UP, MARK, PROGRESS, OWNER, CLOSE = (
    "open", "reverse", "restore", "fence", "catch-up", "mark", "progress", "owner", "close",
)  # fmt: skip
UNDONE_BY_ABORT = frozenset({FENCE, REVERSE, OWNER})
"""What else a step did stays, and is harmless: offsets written to a side that nobody consumes on are written again or consumed from."""


@dataclass(frozen=True, slots=True)
class Options:
    """``rehearse``: everything but what a client of either cluster would notice. ``fence_source``: the side that is left stops
    serving the groups and, where no flow writes to its topics, taking messages. ``force``: go on in spite of blockers, leaving out
    what they concern. ``topic``, ``group``: only these. ``restore``: at a failback, what the failed cluster has lost goes back to it."""

    rehearse: bool = False
    fence_source: bool = False
    force: bool = False
    topic: str | None = None
    group: str | None = None
    restore: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Step:
    """``notes``: what the step found or did, kept for who does it again or undoes it."""

    name: str
    state: str = "pending"
    """pending, running, done, undone"""
    detail: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Course:
    steps: tuple[Step, ...]
    state: str = RUNNING
    reason: str = ""
    """What is waited for, or why it failed."""

    @property
    def is_open(self) -> bool:
        return self.state not in ENDED

    def step(self, name: str) -> Step | None:
        return next((one for one in self.steps if one.name == name), None)

    def to_json(self) -> dict[str, Any]:
        steps = [{"name": one.name, "state": one.state, "detail": one.detail, "notes": dict(one.notes)} for one in self.steps]
        return {"state": self.state, "reason": self.reason, "steps": steps}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Course:
        return cls(tuple(Step(**one) for one in stored["steps"]), stored["state"], stored["reason"])


def steps_of(kind: str, options: Options, *, is_two_way: bool) -> tuple[str, ...]:
    """In their order.

    A one-way task has no flow back: what is born at the destination from now on is marked at a failover, and carried by a temporary
    reverse flow at the failback. ``catch-up`` comes after the fence, so that what it waits for cannot grow any more, and waits for what
    ``restore`` has sent on its way."""
    fence = (FENCE,) if options.fence_source else ()
    if kind == FAILOVER:
        mark = () if is_two_way else (MARK,)
        return (*fence, CATCH_UP, *mark, PROGRESS, OWNER)
    reverse = () if is_two_way else (REVERSE,)
    restore = (RESTORE,) if options.restore else ()
    return (OPEN, *reverse, *restore, *fence, CATCH_UP, PROGRESS, OWNER, CLOSE)


def begin(names: Sequence[str]) -> Course:
    return Course(tuple(Step(name) for name in names))


def next_step(course: Course) -> Step | None:
    """The step to carry out now, or, in a course that is aborting, to undo. None where there is none left."""
    if not course.is_open:
        return None
    if course.state == ABORTING:
        begun = (one for one in reversed(course.steps) if one.state in ("running", "done") and one.name in UNDONE_BY_ABORT)
        return next(begun, None)
    return next((one for one in course.steps if one.state in ("pending", "running")), None)


def started(course: Course, name: str) -> Course:
    """Saved before the step is carried out, so that an abort knows what may have been done."""
    return replace(_with(course, name, state="running"), state=RUNNING, reason="")


def noted(course: Course, name: str, notes: Mapping[str, Any]) -> Course:
    """What the step is about to change, saved before it does."""
    step = course.step(name)
    return _with(course, name, notes={**(step.notes if step else {}), **notes})


def finished(course: Course, name: str, detail: str) -> Course:
    after = replace(_with(course, name, state="done", detail=detail), state=RUNNING, reason="")
    return replace(after, state=DONE) if next_step(after) is None else after


def waits(course: Course, name: str, reason: str) -> Course:
    return replace(_with(course, name, state="running"), state=WAITING, reason=reason)


def undone(course: Course, name: str, detail: str) -> Course:
    return settled(_with(course, name, state="undone", detail=detail))


def aborting(course: Course, reason: str) -> Course:
    """An ended course stays as it is."""
    return settled(replace(course, state=ABORTING, reason=reason)) if course.is_open else course


def settled(course: Course) -> Course:
    """An aborting course with nothing left to undo has ended."""
    return replace(course, state=ABORTED) if course.state == ABORTING and next_step(course) is None else course


def _with(course: Course, name: str, **changes: Any) -> Course:
    return replace(course, steps=tuple(replace(one, **changes) if one.name == name else one for one in course.steps))
