"""A world small enough to know everything: clusters with queues, flows that copy, one group that consumes and moves.

Every record carries the identity of its message, which no map ever sees. What the group has processed is a set of messages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from replicator.core.offset_map import Epoch, Found, OffsetMap
from replicator.core.progress import Feeding, NoStart, Start, WayBack, WrittenQueue
from replicator.core.record import MessageQueue, OffsetRange
from replicator.store.port import Duplicate, Hole, Run


@dataclass(frozen=True)
class Message:
    number: int
    born: MessageQueue
    filtered: frozenset[str] = frozenset()
    """Clusters it is filtered away from."""


def queue(cluster: str, number: int = 0) -> MessageQueue:
    """The cluster's name stands where the broker's stands: one broker a cluster."""
    return MessageQueue("orders", cluster, number)


@dataclass(frozen=True)
class Saved:
    """The rows of one assignment as the store holds them."""

    runs: tuple[Run, ...] = ()
    holes: tuple[Hole, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    epochs: tuple[Epoch, ...] = (Epoch(1),)
    examined: int = 0
    pieces: frozenset[int] = frozenset()
    """Source offsets that the newest epoch restores."""

    @property
    def decided(self) -> int:
        """One past the last source offset that was decided upon once; while it restores, what is examined lies below."""
        return max(self.examined, self.epochs[-1].restored_through)

    def build(self) -> OffsetMap:
        return OffsetMap(
            self.runs, holes=self.holes, duplicates=self.duplicates, epochs=self.epochs, examined_through=self.examined,
        )


@dataclass
class Assignment:
    source: MessageQueue
    destination: MessageQueue
    now: Saved = Saved()
    saved: Saved = Saved()


class World:
    def __init__(self, flows: list[tuple[MessageQueue, MessageQueue]]) -> None:
        self.flows = flows
        self.assignments = [Assignment(*flow) for flow in flows]
        queues = sorted({end for flow in flows for end in flow})
        self.logs: dict[MessageQueue, list[Message]] = {one: [] for one in queues}
        self.lowest = dict.fromkeys(queues, 0)
        self.sent_back: set[tuple[MessageQueue, int]] = set()
        """Records that were restored: copies, though they are where their messages were born."""
        self.offsets: dict[MessageQueue, int] = {}
        self.past: dict[tuple[MessageQueue, int], int] = {}
        self.processed: set[Message] = set()
        self.owner = "a"
        self.count = 0
        self.history: list[tuple[object, ...]] = []

    def __repr__(self) -> str:
        """The way here, which is what one wants to see of a world that fails."""
        flows = [f"{source.broker_name}{source.queue_id}->{to.broker_name}{to.queue_id}" for source, to in self.flows]
        return f"World({' '.join(flows)}: {self.history})"

    def do(self, name: str, *arguments: object) -> None:
        self.history.append((name, *arguments))
        getattr(self, name)(*arguments)

    def queues(self, cluster: str) -> list[MessageQueue]:
        return [one for one in self.logs if one.broker_name == cluster]

    @property
    def clusters(self) -> list[str]:
        return sorted({one.broker_name for one in self.logs})

    def pick(self, index: int) -> MessageQueue:
        return list(self.logs)[index % len(self.logs)]

    # what may happen

    def produce(self, index: int, count: int, filtered: bool) -> None:
        where = self.pick(index)
        away = frozenset(self.clusters) - {where.broker_name} if filtered else frozenset()
        for _ in range(count):
            self.count += 1
            self.logs[where].append(Message(self.count, where, away))

    def copy(self, index: int, count: int) -> None:
        one = self.assignments[index % len(self.assignments)]
        epoch = one.now.epochs[-1].number
        for offset in range(one.now.examined, min(one.now.examined + count, len(self.logs[one.source]))):
            message = self.logs[one.source][offset]
            reason = ""
            if offset < one.now.epochs[-1].restored_through:
                if offset in one.now.pieces and offset >= self.lowest[one.source]:
                    self.sent_back.add((one.destination, len(self.logs[one.destination])))
                    one.now = replace(one.now, runs=(*one.now.runs, Run(epoch, offset, len(self.logs[one.destination]), 1)))
                    self.logs[one.destination].append(message)
                one.now = replace(one.now, examined=offset + 1)
                continue
            if offset < self.lowest[one.source]:
                reason = "expired"
            elif message.born.broker_name != one.source.broker_name or (one.source, offset) in self.sent_back:
                reason = "loop"
            elif one.destination.broker_name in message.filtered:
                reason = "filtered"
            if reason:
                one.now = replace(one.now, holes=(*one.now.holes, Hole(epoch, offset, 1, reason)))
            else:
                one.now = replace(one.now, runs=(*one.now.runs, Run(epoch, offset, len(self.logs[one.destination]), 1)))
                self.logs[one.destination].append(message)
            one.now = replace(one.now, examined=offset + 1)

    def duplicate(self, index: int, back: int) -> None:
        """Known at once: what nobody has detected is outside of every bound."""
        one = self.assignments[index % len(self.assignments)]
        current = [run for run in one.now.runs if run.epoch == one.now.epochs[-1].number]
        if current:
            run = current[-1 - back % len(current)]
            row = Duplicate(run.epoch, run.source_start, len(self.logs[one.destination]), "duplicate")
            one.now = replace(one.now, duplicates=(*one.now.duplicates, row))
            one.saved = one.now
            if self.logs[one.source][run.source_start].born.broker_name == one.destination.broker_name:
                self.sent_back.add((one.destination, len(self.logs[one.destination])))
            self.logs[one.destination].append(self.logs[one.source][run.source_start])

    def restore(self, index: int) -> None:
        """What the destination of a flow has lost and its source still holds copies of is to be sent back."""
        one = self.assignments[index % len(self.assignments)]
        if one.now.examined < one.now.decided:
            return  # At it already.
        known, pieces = one.now.build(), set()
        for other in self.assignments:
            if other.destination == one.source and other.source.broker_name == one.destination.broker_name:
                lost = other.now.build().ghosts()
                pieces |= {record + i for _, _, record, length, lowest in lost if record == lowest for i in range(length)}
        kept = range(self.lowest[one.source], one.now.examined)
        pieces = {record for record in pieces if record in kept and not isinstance(known.to_destination(record), Found)}
        if pieces:
            later = Epoch(one.now.epochs[-1].number + 1, one.now.examined, min(pieces))
            one.now = replace(one.now, epochs=(*one.now.epochs, later), examined=min(pieces), pieces=frozenset(pieces))
            one.saved = one.now

    def save(self, index: int) -> None:
        one = self.assignments[index % len(self.assignments)]
        one.saved = one.now

    def save_all(self) -> None:
        for index in range(len(self.assignments)):
            self.save(index)

    def finish(self) -> None:
        for _ in range(3):
            for index in range(len(self.assignments)):
                self.copy(index, 10_000)

    def consume(self, index: int, count: int) -> None:
        mine = self.queues(self.owner)
        where = mine[index % len(mine)]
        begin = self.offsets.get(where, 0)
        end = min(max(begin, self.lowest[where]) + count, len(self.logs[where]))
        # What expired before the group came is given up by it: its offset passes it like all the rest.
        self.processed.update(self.logs[where][begin:end])
        self.offsets[where] = end

    def expire(self, index: int, count: int) -> None:
        where = self.pick(index)
        self.lowest[where] = min(self.lowest[where] + count, len(self.logs[where]))

    def lose_tail(self, index: int, count: int) -> None:
        """The queue loses its newest records and goes on as another history. Only what was born there: a lost copy is the
        business of the flow that made it. A flow that had read further notices, and its rows are stored with the new epoch."""
        where = self.pick(index)
        log = self.logs[where]
        foreign = [offset for offset, message in enumerate(log) if message.born != where or (where, offset) in self.sent_back]
        keep = max(len(log) - count, foreign[-1] + 1 if foreign else 0, self.lowest[where])
        if keep >= len(log):
            return
        del log[keep:]
        reached = self.offsets.get(where, 0)
        for one in self.assignments:
            if one.source == where and one.now.decided > keep:
                self.past[(where, one.now.epochs[-1].number)] = reached
                later = Epoch(one.now.epochs[-1].number + 1, keep, keep)
                one.now = replace(one.now, epochs=(*one.now.epochs, later), examined=keep)
            if one.source == where:
                one.saved = one.now
        if where in self.offsets:
            self.offsets[where] = min(reached, keep)

    def move(self, index: int) -> None:
        """The group stops, its progress is written on another side, and it goes on there."""
        side = self.clusters[index % len(self.clusters)]
        starts = {where: self.plan(where) for where in self.queues(side)} if side != self.owner else {}
        if starts and all(isinstance(start, Start) for start in starts.values()):
            self.owner = side
            for where, start in starts.items():
                assert isinstance(start, Start)
                self.offsets[where] = start.offset
                self.processed.update(self.logs[where][: self.lowest[where]])  # given up: the plan has said how many

    # what is asked

    def written(self, where: MessageQueue, *, local_holds: bool = True) -> WrittenQueue:
        feeding, back = [], None
        for one in self.assignments:
            if one.destination == where:
                feeding.append(self._feeding(one))
            if one.source == where and one.destination.broker_name == self.owner:
                back = WayBack(one.saved.build(), one.destination)
        return WrittenQueue(feeding, back, local_holds=local_holds)

    def _feeding(self, one: Assignment) -> Feeding:
        name, copies = str(one.source), one.saved.build()
        if one.source.broker_name == self.owner:
            return Feeding(name, copies, one.source)
        for other in self.assignments:
            if other.source == one.source and other.destination.broker_name == self.owner:
                return Feeding(name, copies, other.destination, other.saved.build())
        return Feeding(name, copies, None)

    def plan(self, where: MessageQueue, *, local_holds: bool = True) -> Start | NoStart:
        owned = {one: self.offsets.get(one) for one in self.queues(self.owner)}
        return self.written(where, local_holds=local_holds).start(
            self.bounds(where), owned, passed_through=self.offsets.get(where, 0), past=self.past
        )

    def bounds(self, where: MessageQueue) -> OffsetRange:
        return OffsetRange(self.lowest[where], len(self.logs[where]))


a0, a1, b0, b1, c0 = queue("a", 0), queue("a", 1), queue("b", 0), queue("b", 1), queue("c", 0)
ONE_WAY_FOLDED = [(a0, b0), (a1, b0)]
ONE_WAY_FROM_TWO = [(a0, b0), (c0, b0)]
TWO_WAY = [(a0, b0), (b0, a0)]
TWO_WAY_FOLDED = [(a0, b0), (a1, b0), (b0, a0)]
TWO_WAY_UNFED = [(a0, b0), (b0, a0), (b1, a0)]
THREE = [(one, other) for one in (a0, b0, c0) for other in (a0, b0, c0) if one != other]
