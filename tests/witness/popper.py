"""The official gRPC client as a program: ``python -m tests.witness.popper ENDPOINT GROUP TOPIC TAKE ACKNOWLEDGE SECONDS``.

Receives up to TAKE messages within SECONDS, acknowledges the first ACKNOWLEDGE of them, prints the keys as JSON, and stays a
member until its input ends.
"""

from __future__ import annotations

import json
import sys
import time

from rocketmq import ClientConfiguration, Credentials, FilterExpression, SimpleConsumer
from rocketmq.v5.exception.client_exception import ClientException

BATCH = 16
INVISIBLE_SECONDS = 300
AWAIT_SECONDS = 3
SETTING_SECONDS = 0.5


def main(endpoint: str, group: str, topic: str, take: int, acknowledge: int, seconds: float) -> None:
    consumer = SimpleConsumer(ClientConfiguration(endpoint, Credentials()), group, {topic: FilterExpression()}, AWAIT_SECONDS)
    consumer.startup()
    keys: list[str] = []
    end = time.monotonic() + seconds
    while len(keys) < take and time.monotonic() < end:
        try:
            received = consumer.receive(min(BATCH, take - len(keys)), INVISIBLE_SECONDS) or []
        except ClientException:
            time.sleep(SETTING_SECONDS)  # The proxy may not know this client's settings yet, and answers with an error.
            continue
        for message in received:
            keys.append(next(iter(message.keys)))
            if len(keys) <= acknowledge:
                consumer.ack(message)
    print(json.dumps(keys), flush=True)
    sys.stdin.read()
    consumer.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
