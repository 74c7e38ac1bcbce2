"""What the client raises: plain exceptions, mapped to the product's own in the connector (``connectors.rocketmq.mapping``)."""

from __future__ import annotations

from connectors.rocketmq.remoting.codes import describe


class Unreachable(Exception):
    """No connection, a lost one, or no answer in time. Whether a request was executed is not known."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"{address}: {why}")
        self.address = address


class Answered(Exception):
    """The server answered with a code that the caller did not expect."""

    def __init__(self, address: str, request: str, code: int, remark: str) -> None:
        super().__init__(f"{address}: {request}: {describe(code)}{': ' + remark if remark else ''}")
        self.code = code
        self.remark = remark
