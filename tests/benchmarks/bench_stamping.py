"""CPU microseconds a record of the pure decision, by kind of batch: ``python -m tests.benchmarks.bench_stamping``."""

import time

from replicator.core.provenance import Provenance
from replicator.core.record import MessageQueue, RecordBatch
from replicator.core.stamp import Place, stamp_prefix
from replicator.core.stamping import Stamper, TagSource

RESERVED = (
    b"DELAY REAL_TOPIC REAL_QID TRAN_MSG PGROUP __transactionId__ TRANSACTION_CHECK_TIMES TRAN_PREPARED_QUEUE_OFFSET "
    b"CHECK_IMMUNITY_TIME_IN_SECONDS TIMER_OUT_MS TIMER_DELIVER_MS TIMER_ENQUEUE_MS TIMER_DEQUEUE_MS TIMER_DELAY_SEC TIMER_DELAY_MS "
    b"TIMER_ROLL_TIMES WAIT CLUSTER MSG_REGION TRACE_ON INNER_NUM INNER_BASE INNER_MULTI_DISPATCH INNER_MULTI_QUEUE_OFFSET "
    b"__CRC32# DUP_INFO POP_CK POP_CK_OFFSET 1ST_POP_TIME MIN_OFFSET MAX_OFFSET CONSUME_START_TIME TRANSFER_FLAG CORRECTION_FLAG MQ2_FLAG"
).split()
COUNT = 1024


def make_stamper() -> Stamper:
    source = Place("hz8k2m3a", MessageQueue("orders", "broker-a", 3))
    put = Place("sh7q2m3b", MessageQueue("orders", "broker-a", 3))
    tags = TagSource((b"origin",), b"origin\x01hangzhou\x02", lambda properties, origin: b"origin\x01hangzhou\x02")
    return Stamper(stamp_prefix("k3f9a2", put, source, 1), tags, RESERVED, Provenance(source, "sh7q2m3b", relay=False))


def make_batch(extra: bytes) -> RecordBatch:
    properties = [
        b"KEYS\x01k%d\x02UNIQ_KEY\x017F0000010B2A18B4AAC2%012d\x02level\x011\x02WAIT\x01true\x02%b" % (i, i, extra) for i in range(COUNT)
    ]
    column = [0] * COUNT
    return RecordBatch(
        list(range(COUNT)), [b"x" * 128] * COUNT, properties, column, column, column, [1_763_700_000_000 + i for i in range(COUNT)],
        column, column, column, next_offset=COUNT,
    )


def main() -> None:
    single = b"MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02CLUSTER\x01DefaultCluster\x02"
    for name, extra in (("plain", b""), ("with broker properties", single), ("own origin tag", b"origin\x01mine\x02")):
        stamper, batch = make_stamper(), make_batch(extra)
        best = 1e9
        for _ in range(9):
            begin = time.process_time()
            for _ in range(20):
                stamper.decide(batch, 0)
            best = min(best, (time.process_time() - begin) / 20 / COUNT * 1e6)
        print(f"decide, {name}: {best:.2f} µs a record")


if __name__ == "__main__":
    main()
