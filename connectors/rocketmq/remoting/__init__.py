"""RocketMQ's remoting protocol without input or output: bytes in, commands out, and back.

Standard library only; no socket, no clock, no event loop, and nothing of the replicator. Both roles are spoken, so that a
fake broker can be built on the same code.
"""
