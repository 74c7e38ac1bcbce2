"""The client's plain exceptions as the product's own: the one place where a code becomes an instruction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from connectors.rocketmq.client.errors import Answered, Unreachable, Untrusted, UnusableFile
from connectors.rocketmq.remoting.codes import Kind, kind_of
from connectors.rocketmq.remoting.errors import ProtocolError
from replicator.core.errors import NotConnected, NotFound, NotPermitted, Refused, ReplicatorError, Throttled

_NOT_THROUGH_PROXIES = (
    "; this looks like the remoting port of a 5.x proxy: it tells neither brokers nor topics nor groups, so nothing can be copied "
    "through it; give name_servers, and make their brokers reachable (address_map)"
)


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
        raise error_of(where, error) from error


def error_of(where: str, error: Answered) -> ReplicatorError:
    kind = kind_of(error.code)
    text = f"{where}: {error}"
    if kind is Kind.BUSY:
        return Throttled(text)
    if kind is Kind.MOVED:
        return NotConnected(text)
    if error.concerns_credentials:
        return NotPermitted(text, hint=account_hint(error))
    if kind in (Kind.MISSING, Kind.NOT_FOUND):
        return NotFound(text)
    return Refused(text + (_NOT_THROUGH_PROXIES if error.is_of_proxy else ""))
