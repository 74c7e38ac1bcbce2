"""Request signing (AclClientRPCHook, AclUtils): HMAC-SHA1 over the field values in the order of their names, then the body."""

from __future__ import annotations

import base64
import hmac

ACCESS_KEY = "AccessKey"
SECURITY_TOKEN = "SecurityToken"
SIGNATURE = "Signature"


def sign(
    ext_fields: dict[str, str], body: bytes | memoryview, access_key: str, secret_key: str, security_token: str = ""
) -> dict[str, str]:
    """The fields to send instead of ``ext_fields``: without empty ones, which would be signed as something else."""
    fields = {name: value for name, value in ext_fields.items() if value and name != SIGNATURE}
    fields[ACCESS_KEY] = access_key
    if security_token:
        fields[SECURITY_TOKEN] = security_token
    fields[SIGNATURE] = signature(fields, body, secret_key)
    return fields


def signature(fields: dict[str, str], body: bytes | memoryview, secret_key: str) -> str:
    """What a server computes to compare; an existing signature among the fields is left out."""
    digest = hmac.new(secret_key.encode(), digestmod="sha1")
    for name in sorted(fields):
        if name != SIGNATURE:
            digest.update(fields[name].encode("utf-8", "surrogateescape"))
    digest.update(body)
    return base64.b64encode(digest.digest()).decode()
