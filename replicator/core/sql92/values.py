"""Values of a filter and how the broker compares them.

The broker is Java: an integer literal is 32 or 64 bits wide by its size, a string beside a number is read as a number of
the same kind, and a double orders -0.0 before 0.0 and NaN last. A value that cannot be read so ends the evaluation
(``NotComparable``): the message then does not match.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from enum import Enum

INT_MIN, INT_MAX = -(2**31), 2**31 - 1
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
INTEGER_DIGITS_MAX = 19

Value = str | bool | int | float | None
Order = Callable[[Value, Value], int]

_DOUBLE = re.compile(r"[+-]?(?:NaN|Infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fFdD]?)")
_HEX_DOUBLE = re.compile(r"([+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+)[fFdD]?")
_CONTROL_AND_SPACE = "".join(map(chr, range(0x21)))


class NotComparable(Exception):
    """The evaluation of this message ends here: two values have no order at the broker."""


class Kind(Enum):
    """What a term yields besides unknown. STRING stands for properties and string literals."""

    STRING = "string"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    LONG = "long"
    DOUBLE = "double"
    UNKNOWN = "unknown"

    @property
    def is_number(self) -> bool:
        return self in _NUMBERS


_NUMBERS = frozenset({Kind.INTEGER, Kind.LONG, Kind.DOUBLE})


def read_integer(text: str, low: int, high: int) -> int:
    """As ``Integer.valueOf`` and ``Long.valueOf``: an optional sign and decimal digits of any script, no space."""
    if len(text) <= INTEGER_DIGITS_MAX and text.isascii() and text.isdigit():
        number = int(text)
    else:
        digits = text[1:] if text[:1] in ("+", "-") else text
        values = [unicodedata.decimal(character, -1) if ord(character) < 0x10000 else -1 for character in digits]
        if not values or -1 in values:
            raise NotComparable(f"{text!r} is not a whole number")
        plain = "".join(map(str, values)).lstrip("0") or "0"
        if len(plain) > INTEGER_DIGITS_MAX:
            raise NotComparable(f"{text!r} is out of range")
        number = -int(plain) if text[0] == "-" else int(plain)
    if not low <= number <= high:
        raise NotComparable(f"{text!r} is out of range")
    return number


def read_double(text: str) -> float:
    """As ``Double.valueOf``: surrounding space, hexadecimal forms and the suffixes f and d are taken."""
    stripped = text.strip(_CONTROL_AND_SPACE)
    if _DOUBLE.fullmatch(stripped):
        return float(stripped if stripped.endswith(("NaN", "Infinity")) else stripped.rstrip("fFdD"))
    match = _HEX_DOUBLE.fullmatch(stripped)
    if match is None:
        raise NotComparable(f"{text!r} is not a number")
    try:
        return float.fromhex(match.group(1))
    except OverflowError:
        return -math.inf if stripped.startswith("-") else math.inf


def order_doubles(left: float, right: float) -> int:
    """A total order: -0.0 before 0.0, NaN equal to itself and after everything else."""
    if left < right:
        return -1
    if left > right:
        return 1
    return _rank(left) - _rank(right)


def _rank(number: float) -> int:
    if math.isnan(number):
        return 1
    return -1 if number == 0 and math.copysign(1.0, number) < 0 else 0


def order_of(left: Kind, right: Kind) -> Order:
    """How values of these kinds compare: negative, 0 or positive; the result may raise ``NotComparable``."""
    if left is right:
        return _SAME[left]
    if left.is_number and right.is_number:
        return _order_numbers(left, right)
    if left is Kind.STRING:
        return _order_string(right)
    if right is Kind.STRING:
        return _refuse if left is Kind.BOOLEAN else _reversed(_order_string(left))
    return _before


def order_numeric_strings(left: Value, right: Value) -> int:
    """Two properties beside ``<`` and the like: both are read as doubles."""
    return order_doubles(read_double(str(left)), read_double(str(right)))


def _order_numbers(left: Kind, right: Kind) -> Order:
    if Kind.DOUBLE in (left, right):
        return _order_as_doubles
    return _order_plain


def _order_string(right: Kind) -> Order:
    if right is Kind.INTEGER:
        return lambda a, b: _order_plain(read_integer(str(a), INT_MIN, INT_MAX), b)
    if right is Kind.LONG:
        return lambda a, b: _order_plain(read_integer(str(a), LONG_MIN, LONG_MAX), b)
    if right is Kind.DOUBLE:
        return lambda a, b: _order_as_doubles(read_double(str(a)), b)
    if right is Kind.BOOLEAN:
        return lambda a, b: _order_plain(str(a).lower() == "true", b)
    return _before


def _order_as_doubles(left: Value, right: Value) -> int:
    assert isinstance(left, int | float)
    assert isinstance(right, int | float)
    return order_doubles(float(left), float(right))


def _reversed(order: Order) -> Order:
    return lambda a, b: -order(b, a)


def _order_plain(left: Value, right: Value) -> int:
    return (left > right) - (left < right)  # type: ignore[operator]  # same kind, known when compiled


def _before(left: Value, right: Value) -> int:
    """Kinds the broker cannot convert into one another: it answers "less"."""
    return -1


def _refuse(left: Value, right: Value) -> int:
    raise NotComparable("a truth value on the left of a string")


_SAME: dict[Kind, Order] = {
    Kind.STRING: _order_plain,
    Kind.BOOLEAN: _order_plain,
    Kind.INTEGER: _order_plain,
    Kind.LONG: _order_plain,
    Kind.DOUBLE: _order_as_doubles,
    Kind.UNKNOWN: _before,
}
