"""Which worker copies which queue: by nearness first, then by weight, moving as little as possible.

A queue may go to the workers near its destination; where there is none, to those that are near nothing; where there is none of
them either, to any. Among the workers a queue may go to, load is weight. A queue stays where it is unless its worker is gone, a
nearer one came, or the load of its class of workers differs by more than ``IMBALANCE_BEGIN``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

IDLE_WEIGHT_MESSAGES_PER_SECOND = 10.0
"""What a queue costs its worker while nothing passes (long polls, lock renewals, saves), in the messages a second it could copy instead."""
IMBALANCE_BEGIN = 0.25
"""Moves begin where the heaviest and the lightest worker differ by more than this part of the mean load."""
IMBALANCE_END = 0.05
"""Once begun, moves go on until they differ by no more than this part: one move now instead of a small one each time."""
ANYWHERE = ""


@dataclass(frozen=True, slots=True)
class Placeable:
    """A queue to be copied. ``worker``: who copies it now or is about to, empty for nobody."""

    assignment_id: int
    destination: str
    weight: float
    worker: str = ""


def weight_of(rate_per_second: float | None) -> float:
    return IDLE_WEIGHT_MESSAGES_PER_SECOND + max(0.0, rate_per_second or 0.0)


def place(queues: Iterable[Placeable], workers: Mapping[str, str]) -> dict[int, str]:
    """The worker of each queue, all queues included; empty without workers. ``workers``: {name: cluster it is near, or ``ANYWHERE``}.
    The same input gives the same answer, and the answer given back as input is its own answer."""
    if not workers:
        return {}
    classes: dict[tuple[str, ...], list[Placeable]] = defaultdict(list)
    choices = {destination: _choice(destination, workers) for destination in {queue.destination for queue in queues}}
    for queue in sorted(queues, key=lambda one: (-one.weight, one.assignment_id)):
        classes[choices[queue.destination]].append(queue)
    loads = dict.fromkeys(workers, 0.0)
    placed: dict[int, str] = {}
    # Narrow classes first: a worker near its own clusters takes of what anybody may have only as far as that leaves room.
    for names in sorted(classes, key=lambda names: (len(names), names)):
        placed |= _place_class(classes[names], names, loads)
    return placed


def _choice(destination: str, workers: Mapping[str, str]) -> tuple[str, ...]:
    for near in (destination, ANYWHERE):
        if found := tuple(sorted(name for name, place in workers.items() if place == near)):
            return found
    return tuple(sorted(workers))


def _place_class(queues: Sequence[Placeable], names: tuple[str, ...], loads: dict[str, float]) -> dict[int, str]:
    """``queues``: heaviest first. ``loads`` of earlier classes count, and are added to."""
    held: dict[str, list[Placeable]] = {name: [] for name in names}
    homeless = []
    for queue in queues:
        if queue.worker in held:
            held[queue.worker].append(queue)
            loads[queue.worker] += queue.weight
        else:
            homeless.append(queue)
    for queue in homeless:
        name = min(names, key=lambda one: (loads[one], one))
        held[name].append(queue)
        loads[name] += queue.weight
    _balance(held, loads)
    return {queue.assignment_id: name for name, own in held.items() for queue in own}


def _balance(held: dict[str, list[Placeable]], loads: dict[str, float]) -> None:
    """Each move takes what brings the heaviest and the lightest worker closest together."""
    mean = sum(loads[name] for name in held) / len(held)
    bound = IMBALANCE_BEGIN * mean
    while True:
        # Only who has something of this class can give it away.
        givers = [name for name, own in held.items() if own]
        if not givers:
            return
        heaviest = max(givers, key=lambda one: (loads[one], one))
        lightest = min(held, key=lambda one: (loads[one], one))
        difference = loads[heaviest] - loads[lightest]
        movable = [queue for queue in held[heaviest] if queue.weight < difference]
        if difference <= bound or not movable:
            return
        bound = IMBALANCE_END * mean
        moved = min(movable, key=lambda one: (abs(2 * one.weight - difference), one.assignment_id))
        held[heaviest].remove(moved)
        held[lightest].append(moved)
        loads[heaviest] -= moved.weight
        loads[lightest] += moved.weight
