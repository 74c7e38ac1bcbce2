"""Every limit and interval of the worker, with its unit and its reason."""

APPEND_BYTES_TARGET = 1024 * 1024
"""One append carries at most this much: large enough that the broker's cost per request vanishes, small against its 4 MiB."""

APPEND_RECORDS_MAX = 2000
"""RocketMQ 5.x counts a batch in 16 bits (P§5); a few thousand is far from it and already past the point of gain."""

APPEND_TIMEOUT_SECONDS = 5.0
"""An append without an answer after this is in doubt."""

LATE_ANSWER_SECONDS = 5.0
"""How long doubt waits for the answer on the same connection before the connection is reset."""

FENCE_VALID_SECONDS = 3.0
"""V: a frame may be completed only while the start of the last confirmed lock renewal is younger than this."""

FENCE_RENEW_SECONDS = 1.0

SETTLE_SECONDS = 1.0
"""What a broker may need to run requests it had already taken off the wire, counted from when it answers again."""

CENSUS_SECONDS_MAX = 150.0
"""A broker closes channels that sent no heartbeat for 120 s: a sender still listed after this is a refusal to show a person."""

CENSUS_INTERVAL_SECONDS = 0.2

BARRIER_TIMEOUT_SECONDS = 10.0

LEASE_SECONDS = 5.0
LEASE_RENEW_SECONDS = 1.0
LEASES_PER_ROUND_MAX = 500
SHARES_PAUSE_SECONDS = 0.02
"""Changes of who is to hold what are followed as they are told of, those of one moment together."""
WARM_SECONDS_MAX = 2.0
"""A worker that begins waits this long for its connections before it says that it is there."""

PROOF_AGE_SECONDS_MAX = 1.0
"""How old the proof of the source's history may be when records are examined: a topic deleted, created again and filled beyond our
position while a read waits for records answers it as if nothing had happened."""

SAVE_INTERVAL_SECONDS = 1.0
RATE_SECONDS_MIN = 0.5
FIGURES_INTERVAL_SECONDS = 5.0
"""Unchanged assignments report their lag this often."""

FIGURES_FRESH_SECONDS = 15.0
"""A lag read longer ago counts as unknown."""

PUBLISH_INTERVAL_SECONDS = 5.0

BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_SECONDS_MAX = 5.0
BLOCKED_RETRY_SECONDS = 10.0
"""A blocked assignment looks again this often whether what blocked it was mended."""

PARKED_IN_ROW_MAX = 100
"""So many refusals of single records in a row are no longer about records."""

STOP_SECONDS_MAX = 6.0
"""A stop waits this long for what is in flight; then the rest is left to be settled by the next holder."""

GOODBYE_SECONDS_MAX = 2.0
LATENCY_SAMPLES_MAX = 512
VERIFY_RUNS_PAGE = 200
"""Runs read at a time while walking back to the last copy that is still there."""

RUNS_KEPT_MAX = 10_000
"""Runs, and holes, that one assignment keeps while they cannot be saved (a few MB). Beyond it the older ones become a range that
is learned again from the destination's log once the store is back."""

RELEARN_OFFSETS_PAGE = 1_000
"""Destination offsets looked at in one go while a range is learned again; small against what the journal keeps."""

BEYOND_COPIES_MAX = 10_000
"""Up to this many copies found above the position are kept in memory and left out when their batches are read again: more than one
read returns. Beyond it, the stored map is asked batch by batch."""

REPLAY_RUNS_PAGE = 1_000
"""Stored runs looked at in one go while a source queue is matched with its copies."""

CHECK_INTERVAL_SECONDS = 1.0
CHECK_REACH_SECONDS_MAX = 8.0
"""For one cluster of a check; they are reached side by side."""
