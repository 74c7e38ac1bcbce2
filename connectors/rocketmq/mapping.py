"""The client's plain exceptions as the product's own: the one place where a code becomes an instruction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from connectors.rocketmq.client.errors import Answered, Unreachable, Untrusted, UnusableFile
from connectors.rocketmq.remoting.codes import Kind, kind_of
from connectors.rocketmq.remoting.errors import ProtocolError
from replicator.core.errors import NotConnected, NotFound, NotPermitted, Refused, Throttled


def account_hint(error: Answered) -> str:
    """For a person, where the account, its key or one of its rights was refused."""
    return "give the replicator's account this right" if error.concerns_rights else "check access_key and secret_key of the cluster"


@contextlib.contextmanager
def mapped(where: str) -> Iterator[None]:
    """Turns what the client raises inside into the errors of ``core.errors``; ``where`` names cluster, topic, queue."""
    try:
        yield
    except UnusableFile as error:
        raise NotPermitted(f"{where}: {error.message}", hint=error.hint) from error
    except Untrusted as error:
        raise NotPermitted(f"{where}: {error}", hint="look at tls of the cluster, and at the certificates of both sides") from error
    except Unreachable as error:
        raise NotConnected(f"{where}: {error}") from error
    except ProtocolError as error:
        raise NotConnected(f"{where}: unreadable answer: {error}") from error
    except Answered as error:
        kind = kind_of(error.code)
        if kind is Kind.BUSY:
            raise Throttled(f"{where}: {error}") from error
        if kind is Kind.MOVED:
            raise NotConnected(f"{where}: {error}") from error
        if error.concerns_credentials:
            raise NotPermitted(f"{where}: {error}", hint=account_hint(error)) from error
        if kind in (Kind.MISSING, Kind.NOT_FOUND):
            raise NotFound(f"{where}: {error}") from error
        raise Refused(f"{where}: {error}") from error
