"""Independent witnesses: programs on RocketMQ's official Java client that write and read beside the replicator."""
