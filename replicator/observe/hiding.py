"""Secrets taken out of text that people see."""

from __future__ import annotations

import re

HIDDEN = "***"

_SECRET_IN_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/@]+@", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """Hides the passwords of the addresses in ``text``."""
    return _SECRET_IN_URL.sub(rf"\g<scheme>:{HIDDEN}@", text)
