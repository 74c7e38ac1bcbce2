"""How many examples Hypothesis tries: few by default, REPLICATOR_EXAMPLES_FACTOR times as many for a long run."""

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("REPLICATOR_EXAMPLES_FACTOR", "1"))


def examples(count: int) -> settings:
    return settings(max_examples=count * FACTOR, deadline=None, suppress_health_check=[HealthCheck.too_slow])
