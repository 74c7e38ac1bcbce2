"""What the client raises: plain exceptions, mapped to the product's own in the connector (``connectors.rocketmq.mapping``)."""

from __future__ import annotations

import ssl

from connectors.rocketmq.remoting.codes import Kind, RequestCode, ResponseCode, describe, kind_of
from connectors.rocketmq.remoting.command import RemotingCommand
from replicator.core.errors import NotPermitted

_CREDENTIAL_WORDS = ("AclException", "accessKey", "AccessKey", "signature", "permission", "Permission", "uthenticat", "uthoriz")


class Unreachable(Exception):
    """No connection, a lost one, or no answer in time. Whether a request was executed is not known."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"{address}: {why}")
        self.address = address


class Untrusted(Unreachable):
    """TLS was refused, by us or by the server: a certificate that is not accepted, or no protocol in common. Time does not mend it."""


def not_connected(address: str, why: str, error: BaseException | None) -> Unreachable:
    """``Untrusted`` where ``error`` is about TLS; an end of the stream in the middle of it is an end like any other."""
    is_tls = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    return (Untrusted if is_tls else Unreachable)(address, why)


class UnusableFile(NotPermitted):
    """A secret or certificate of ours cannot be read as it is now. Its message knows no cluster: who asked adds it."""


class Answered(Exception):
    """The server answered with a code that the caller did not expect."""

    def __init__(self, address: str, request: str, code: int, remark: str) -> None:
        super().__init__(f"{address}: {request}: {describe(code)}{': ' + remark if remark else ''}")
        self.request = request
        self.code = code
        self.remark = remark

    @property
    def is_of_proxy(self) -> bool:
        """True where it does not know which brokers there are, which every name server does: the remoting port of a 5.x proxy."""
        unknown = self.code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
        return unknown and self.request == RequestCode.GET_BROKER_CLUSTER_INFO.name

    @property
    def concerns_credentials(self) -> bool:
        return _concerns_credentials(self.code, self.remark)

    @property
    def concerns_rights(self) -> bool:
        """Of those: True where the account was recognised and lacks a right, as "No default permission for x", "Need admin permission
        for request code" or "has no permission to access"; False where the key or its secret was not accepted."""
        return self.concerns_credentials and " permission " in self.remark


def refuses_account(answer: RemotingCommand) -> bool:
    """True where the account, its key or one of its rights is what was refused."""
    return _concerns_credentials(answer.code, answer.remark or "")


def _concerns_credentials(code: int, remark: str) -> bool:
    """By code 16, or on 4.x by the remark of code 1."""
    if kind_of(code) is Kind.PERMISSION:
        return True
    return code == ResponseCode.SYSTEM_ERROR and any(word in remark for word in _CREDENTIAL_WORDS)
