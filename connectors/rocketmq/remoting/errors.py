"""The one exception of the wire codec."""

from __future__ import annotations


class ProtocolError(Exception):
    """Bytes that are no RocketMQ remoting traffic, or a value that this protocol cannot carry.

    On a connection the only cure is to close it: the position of the next frame is unknown.
    """
