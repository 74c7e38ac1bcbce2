"""A reader for the JSON that fastjson 1.2 writes.

Maps with number keys come unquoted (``{0:"10.0.0.1:10911"}``) and maps keyed by objects with the object in key position
(``{{"brokerName":"b","queueId":0,"topic":"t"}:{…}}``). Strict JSON is tried first; then number keys are quoted; only object
keys need the slow parser.
"""

from __future__ import annotations

import json
import re
from typing import Any

from connectors.rocketmq.remoting.errors import ProtocolError

DEPTH_MAX = 64

_STRINGS = json.JSONDecoder(strict=False)
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None, "NaN": float("nan"), "Infinity": float("inf")}
_WORD = re.compile(r"true|false|null|NaN|Infinity")
# A whole string (an unfinished one too, so that no text is looked at twice), or a bare number in key position.
_BARE_KEY = re.compile(r'("[^"\\]*(?:\\.?[^"\\]*)*(?:"|$))|([{,]\s*)(-?\d+)(?=\s*:)', re.DOTALL)


def loads(body: bytes | bytearray | memoryview) -> Any:
    """The value in a fastjson body. Number keys become text; an object key becomes a tuple of (name, value) pairs.

    ``{"$ref": …}`` comes back as it stands. Anything else that is no JSON raises ProtocolError.
    """
    text = bytes(body).decode("utf-8", "replace")
    try:
        try:
            return json.loads(text)
        except ValueError:
            return json.loads(_BARE_KEY.sub(_quote_key, text))
    except ValueError:
        return _Parser(text).parse()
    except RecursionError as error:
        raise ProtocolError("body is nested too deep") from error


def _quote_key(match: re.Match[str]) -> str:
    if match[1] is not None:
        return match[1]
    return f'{match[2]}"{match[3]}"'


class _Parser:
    """Recursive descent over the dialect; depth is bounded, every step consumes text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> Any:
        value = self._value(0)
        if self._peek():
            raise self._wrong()
        return value

    def _wrong(self) -> ProtocolError:
        return ProtocolError(f"body is no JSON at character {self._at}")

    def _peek(self) -> str:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _value(self, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise ProtocolError("body is nested too deep")
        mark = self._peek()
        if mark == '"':
            return self._string()
        if mark == "{":
            return self._object(depth)
        if mark == "[":
            return self._array(depth)
        word = _WORD.match(self._text, self._at)
        if word:
            self._at = word.end()
            return _WORDS[word[0]]
        return self._number()

    def _string(self) -> str:
        try:
            value, self._at = _STRINGS.raw_decode(self._text, self._at)
        except ValueError as error:
            raise self._wrong() from error
        return str(value)

    def _number(self) -> int | float:
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            raise self._wrong()
        self._at = match.end()
        try:
            return int(match[0]) if match[0].lstrip("-").isdigit() else float(match[0])
        except ValueError as error:
            raise self._wrong() from error

    def _array(self, depth: int) -> list[Any]:
        self._at += 1
        items: list[Any] = []
        if self._peek() == "]":
            self._at += 1
            return items
        while True:
            items.append(self._value(depth + 1))
            if self._step("]"):
                return items

    def _object(self, depth: int) -> dict[Any, Any]:
        self._at += 1
        members: dict[Any, Any] = {}
        if self._peek() == "}":
            self._at += 1
            return members
        while True:
            key = _freeze(self._value(depth + 1), True)
            if self._peek() != ":":
                raise self._wrong()
            self._at += 1
            members[key] = self._value(depth + 1)
            if self._step("}"):
                return members

    def _step(self, end: str) -> bool:
        """Over a comma (False) or the closing bracket (True)."""
        mark = self._peek()
        if mark not in (",", end) or not mark:
            raise self._wrong()
        self._at += 1
        return mark == end


def _freeze(value: Any, is_key: bool = False) -> Any:
    """A hashable stand-in: pairs in place of an object, text in place of a number that is a key."""
    if isinstance(value, dict):
        return tuple((name, _freeze(item)) for name, item in value.items())
    if isinstance(value, list):
        return tuple(_freeze(item) for item in value)
    if is_key and not isinstance(value, str):
        return json.dumps(value)
    return value
