"""The one error a filter's text can raise."""

from __future__ import annotations

from replicator.core.errors import InvalidInput


class FilterSyntaxError(InvalidInput):
    """The text is not a filter the broker would take. ``position`` counts characters from 0; ``expected`` says what may stand there."""

    def __init__(self, position: int, expected: str, found: str) -> None:
        super().__init__(f"filter, character {position + 1}: expected {expected}, found {found}")
        self.position = position
        self.expected = expected
        self.found = found
