"""Who may do what, and how long a token may live."""

from __future__ import annotations

from enum import StrEnum

DAYS_MAX = 3650


class Role(StrEnum):
    """Each may do what the ones before it may."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def allows(self, wanted: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(wanted)
