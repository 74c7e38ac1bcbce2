"""What may stand in a request: texts that Postgres can keep, and numbers of 64 bits."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

OFFSET_MAX = 2**63 - 1
TEXT_LENGTH_MAX = 255
LISTED_MAX = 1000
"""Ids in one request, rows of one page."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_LENGTH_MAX, pattern=r"^[^\x00]*$")]
"""A name of ours or of a broker's."""
Number = Annotated[int, Field(ge=0, le=OFFSET_MAX)]


class Body(BaseModel):
    """What is not declared is refused, and nothing is guessed: "7" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


def is_storable(value: Any) -> bool:
    """False for a zero byte or half of a surrogate pair anywhere inside a JSON value: Postgres keeps neither."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= one <= "\udfff" for one in value)
    if isinstance(value, dict):
        return all(is_storable(key) and is_storable(one) for key, one in value.items())
    return all(is_storable(one) for one in value) if isinstance(value, list) else True
