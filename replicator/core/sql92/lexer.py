"""Tokens of a filter. Longest match, keywords in any case, comments and white space dropped."""

from __future__ import annotations

import re
from typing import NamedTuple

from replicator.core.sql92.errors import FilterSyntaxError

FILTER_CHARACTERS_MAX = 8192
FOUND_CHARACTERS_MAX = 20

KEYWORDS = frozenset({
    "NOT", "AND", "OR", "BETWEEN", "IN", "TRUE", "FALSE", "NULL", "IS", "CONTAINS", "STARTSWITH", "ENDSWITH",
})

NAME = "name"
STRING = "string"
DECIMAL = "decimal"
FLOATING = "floating"
END = "end"

# A line comment needs its line end: without one the two minus signs are two negations, as at the broker.
_TOKEN = re.compile(
    r"""
    (?P<skip> [ \t\n\r\f]+ | --[^\n\r]*(?:\r\n|\n|\r) | /\*.*?\*/ )
  | (?P<floating> [0-9]+\.[0-9]*(?:[eE][+-]?[0-9]+)? | \.[0-9]+(?:[eE][+-]?[0-9]+)? | [0-9]+[eE][+-]?[0-9]+ )
  | (?P<decimal> 0 | [1-9][0-9]*[lL]? )
  | (?P<string> '(?:''|[^'])*' )
  | (?P<name> [A-Za-z_$][A-Za-z0-9_$]* )
  | (?P<symbol> <> | >= | <= | [=><(),+-] )
    """,
    re.VERBOSE | re.DOTALL,
)
_NAME_ONLY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


class Token(NamedTuple):
    """``kind`` is NAME, STRING, DECIMAL, FLOATING or END, or the keyword (upper case) or symbol itself."""

    kind: str
    text: str
    position: int

    def __str__(self) -> str:
        if self.kind == END:
            return "the end of the filter"
        shown = self.text if len(self.text) <= FOUND_CHARACTERS_MAX else self.text[:FOUND_CHARACTERS_MAX] + "…"
        return shown if self.kind == STRING else f"'{shown}'"


def is_filterable_name(name: str) -> bool:
    """True if a filter can name a property of this name."""
    return _NAME_ONLY.fullmatch(name) is not None and name.upper() not in KEYWORDS


def tokenize(text: str) -> list[Token]:
    """All tokens and a final END. Raises ``FilterSyntaxError``."""
    if len(text) > FILTER_CHARACTERS_MAX:
        raise FilterSyntaxError(FILTER_CHARACTERS_MAX, f"at most {FILTER_CHARACTERS_MAX} characters", f"{len(text)} characters")
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _unknown(text, position)
        kind = match.lastgroup
        if kind != "skip":
            tokens.append(_token(str(kind), match.group(), position))
        position = match.end()
    tokens.append(Token(END, "", len(text)))
    return tokens


def _token(kind: str, text: str, position: int) -> Token:
    if kind == "symbol":
        return Token(text, text, position)
    if kind == NAME and text.upper() in KEYWORDS:
        return Token(text.upper(), text, position)
    return Token(kind, text, position)


def _unknown(text: str, position: int) -> FilterSyntaxError:
    if text[position] == "'":
        return FilterSyntaxError(position, "a string closed with '", "a string without end")
    if text.startswith("/*", position):
        return FilterSyntaxError(position, "a comment closed with */", "a comment without end")
    expected = "<> for 'not equal'" if text.startswith("!=", position) else "a name, a number, a string or an operator"
    return FilterSyntaxError(position, expected, repr(text[position]))
