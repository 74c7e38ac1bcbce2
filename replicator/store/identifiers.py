"""Short lasting ids of flows."""

from __future__ import annotations

import secrets
import string

FLOW_ID_LENGTH = 6
_ALPHABET = string.ascii_lowercase + string.digits


def make_flow_id() -> str:
    """Six characters that cannot be guessed apart from chance; the store refuses one that was ever used."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(FLOW_ID_LENGTH))
