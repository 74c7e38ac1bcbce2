"""CPU microseconds a record of the pure decision, by kind of batch: ``python -m tests.benchmarks.bench_stamping``."""

import time

from replicator.core.provenance import Provenance
from replicator.core.record import MessageQueue, RecordBatch
from replicator.core.stamp import FIRST_HOP_SUFFIX, Place, stamp_prefix
from replicator.core.stamping import Stamper, TagSource

RESERVED = (
    b"DELAY REAL_TOPIC REAL_QID TRAN_MSG PGROUP __transactionId__ TRANSACTION_CHECK_TIMES TRAN_PREPARED_QUEUE_OFFSET "
    b"CHECK_IMMUNITY_TIME_IN_SECONDS TIMER_OUT_MS TIMER_DELIVER_MS TIMER_ENQUEUE_MS TIMER_DEQUEUE_MS TIMER_DELAY_SEC TIMER_DELAY_MS "
    b"TIMER_ROLL_TIMES WAIT CLUSTER MSG_REGION TRACE_ON INNER_NUM INNER_BASE INNER_MULTI_DISPATCH INNER_MULTI_QUEUE_OFFSET "
    b"__CRC32# DUP_INFO POP_CK POP_CK_OFFSET 1ST_POP_TIME MIN_OFFSET MAX_OFFSET CONSUME_START_TIME TRANSFER_FLAG CORRECTION_FLAG MQ2_FLAG"
).split()
COUNT = 1024


SOURCE = Place("hz8k2m3a", MessageQueue("orders", "broker-a", 3))
PUT = Place("sh7q2m3b", MessageQueue("orders", "broker-a", 3))


def make_stamper() -> Stamper:
    tags = TagSource((b"origin",), b"origin\x01hangzhou\x02", lambda properties, origin: b"origin\x01hangzhou\x02")
    return Stamper(stamp_prefix("k3f9a2", PUT, SOURCE, 1), tags, RESERVED, Provenance(SOURCE, "sh7q2m3b", relay=False))


def make_batch(extra: bytes, start: int = 0) -> RecordBatch:
    """``%x`` in ``extra`` is the record's own number."""
    own = b"KEYS\x01k%d\x02UNIQ_KEY\x017F0000010B2A18B4AAC2%012d\x02level\x011\x02WAIT\x01true\x02"
    properties = [own % (i, i) + extra.replace(b"%x", b"%x" % i) for i in range(start, start + COUNT)]
    column, offsets = [0] * COUNT, list(range(start, start + COUNT))
    return RecordBatch(
        offsets, [b"x" * 128] * COUNT, properties, column, column, column, [1_763_700_000_000 + i for i in offsets],
        column, column, column, next_offset=start + COUNT,
    )


def main() -> None:
    broker = b"MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02CLUSTER\x01DefaultCluster\x02"
    copy = stamp_prefix("k3f9a2", SOURCE, PUT, 1) + b"%x;19aa0000000" + FIRST_HOP_SUFFIX + b"origin\x01shanghai\x02"
    for name, extra in (
        ("plain", b""), ("with broker properties", broker),
        ("copies, not to go back", copy + broker), ("own origin tag", b"origin\x01mine\x02"),
    ):
        stamper, best = make_stamper(), 1e9
        for batch in [make_batch(extra, round_number * COUNT) for round_number in range(40)]:
            begin = time.process_time()
            stamper.decide(batch, batch.offsets[0])
            best = min(best, (time.process_time() - begin) / COUNT * 1e6)
        print(f"decide, {name}: {best:.2f} µs a record")


if __name__ == "__main__":
    main()
