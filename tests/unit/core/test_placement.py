"""Sharing of queues among workers: complete, near first, balanced, and calm."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from replicator.core.placement import (
    ANYWHERE,
    IDLE_WEIGHT_MESSAGES_PER_SECOND,
    IMBALANCE_BEGIN,
    Placeable,
    place,
    weight_of,
)

CLUSTERS = ("beijing", "hangzhou", "shanghai")

workers_any = st.dictionaries(
    st.sampled_from([f"w{n}" for n in range(6)]), st.sampled_from([ANYWHERE, *CLUSTERS]), min_size=1, max_size=6
)


@st.composite
def queues_any(draw: st.DrawFn) -> list[Placeable]:
    rates = draw(st.lists(st.one_of(st.none(), st.floats(0, 20_000)), max_size=60))
    return [
        Placeable(
            number, draw(st.sampled_from(CLUSTERS)), weight_of(rate), draw(st.sampled_from(["", "gone", *(f"w{n}" for n in range(6))]))
        )
        for number, rate in enumerate(rates)
    ]


def alike(count: int, *workers: str) -> list[Placeable]:
    """Queues of one weight, placed already."""
    fresh = [Placeable(number, "shanghai", 10.0) for number in range(count)]
    return moved_to(fresh, place(fresh, dict.fromkeys(workers, ANYWHERE)))


def moved_to(queues: list[Placeable], placed: dict[int, str]) -> list[Placeable]:
    return [replace(queue, worker=placed[queue.assignment_id]) for queue in queues]


def may_take(destination: str, workers: dict[str, str]) -> set[str]:
    near = {name for name, where in workers.items() if where == destination}
    return near or {name for name, where in workers.items() if where == ANYWHERE} or set(workers)


@given(queues_any(), workers_any)
def test_every_queue_has_a_living_worker_and_a_near_one_if_there_is_any(queues, workers):
    placed = place(queues, workers)
    assert set(placed) == {queue.assignment_id for queue in queues}
    assert all(placed[queue.assignment_id] in may_take(queue.destination, workers) for queue in queues)


@given(queues_any(), workers_any)
def test_what_was_placed_stays(queues, workers):
    placed = place(queues, workers)
    assert place(moved_to(queues, placed), workers) == placed
    assert place(list(reversed(queues)), dict(reversed(workers.items()))) == placed


@given(queues_any(), st.integers(1, 6))
def test_loads_differ_by_less_than_the_bound_or_than_any_queue_that_could_move(queues, count):
    workers = {f"w{number}": ANYWHERE for number in range(count)}
    placed = place(queues, workers)
    loads: dict[str, float] = dict.fromkeys(workers, 0.0)
    own = defaultdict(list)
    for queue in queues:
        loads[placed[queue.assignment_id]] += queue.weight
        own[placed[queue.assignment_id]].append(queue.weight)
    heaviest = max(loads, key=lambda name: (loads[name], name))
    difference = loads[heaviest] - min(loads.values())
    bound = IMBALANCE_BEGIN * sum(loads.values()) / count
    assert difference <= bound + 1e-6 or min(own[heaviest]) >= difference - 1e-6


@given(st.integers(1, 80), st.integers(1, 5))
def test_a_joining_worker_takes_its_share_and_nothing_else_moves(count, before):
    queues = alike(count, *(f"w{number}" for number in range(before)))
    placed = place(queues, {f"w{number}": ANYWHERE for number in range(before + 1)})
    moves = [placed[queue.assignment_id] for queue in queues if placed[queue.assignment_id] != queue.worker]
    assert set(moves) <= {f"w{before}"}
    share = count // (before + 1)
    assert share - IMBALANCE_BEGIN * share - 1 <= len(moves) <= share + 1


@given(st.integers(1, 80), st.integers(2, 6), st.integers(0, 5))
def test_of_a_worker_that_leaves_only_its_own_queues_move(count, before, leaver):
    names = [f"w{number}" for number in range(before)]
    queues = alike(count, *names)
    left = names.pop(leaver % before)
    placed = place(queues, dict.fromkeys(names, ANYWHERE))
    assert all(placed[queue.assignment_id] == queue.worker for queue in queues if queue.worker != left)
    counts = Counter(placed.values())
    assert max(counts.values()) - min(counts[name] for name in names) <= max(1, IMBALANCE_BEGIN * count / len(names))


@given(st.lists(st.floats(-0.1, 0.1), min_size=12, max_size=12))
def test_rates_that_waver_a_little_move_nothing(wavering):
    queues = alike(12, "w0", "w1", "w2")
    shaken = [replace(queue, weight=queue.weight * (1 + by)) for queue, by in zip(queues, wavering, strict=True)]
    assert place(shaken, dict.fromkeys(("w0", "w1", "w2"), ANYWHERE)) == {queue.assignment_id: queue.worker for queue in queues}


def test_without_workers_nothing_is_said():
    assert place(alike(3, "w0"), {}) == {}


def test_a_worker_near_the_destination_takes_over_from_one_that_is_not_and_gives_back_when_it_leaves():
    queues = alike(4, "far")
    near = place(queues, {"far": ANYWHERE, "near": "shanghai"})
    assert set(near.values()) == {"near"}
    assert set(place(moved_to(queues, near), {"far": ANYWHERE}).values()) == {"far"}


def test_a_worker_near_something_else_is_better_than_none():
    assert set(place(alike(4, "gone"), {"near": "beijing"}).values()) == {"near"}


def test_a_worker_busy_with_its_own_cluster_takes_less_of_what_anybody_may_have():
    own = [Placeable(number, "shanghai", 100.0) for number in range(4)]
    other = [Placeable(number, "hangzhou", 100.0) for number in range(10, 16)]
    placed = place(own + other, {"a": "shanghai", "b": "beijing"})
    assert Counter(placed.values()) == {"a": 5, "b": 5}
    assert {placed[queue.assignment_id] for queue in own} == {"a"}


def test_one_heavy_queue_weighs_as_much_as_many_idle_ones():
    heavy = Placeable(0, "shanghai", weight_of(5000.0))
    idle = [Placeable(number, "shanghai", weight_of(None)) for number in range(1, 101)]
    placed = place([heavy, *idle], {"a": ANYWHERE, "b": ANYWHERE})
    assert Counter(placed.values()) == {placed[0]: 1, ({"a", "b"} - {placed[0]}).pop(): 100}


def test_an_unknown_rate_counts_as_idle():
    assert weight_of(None) == weight_of(0.0) == weight_of(-1.0) == IDLE_WEIGHT_MESSAGES_PER_SECOND
    assert weight_of(90.0) == IDLE_WEIGHT_MESSAGES_PER_SECOND + 90.0
