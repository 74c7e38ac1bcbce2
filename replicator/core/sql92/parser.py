"""Recursive descent over the broker's grammar; each rule returns a compiled term.

    or := and (OR and)*                     unary   := (+ | - | NOT) unary | primary
    and := equality (AND equality)*         primary := literal | name | ( or )
    equality := comparison ((= | <>) comparison | IS [NOT] NULL)*
    comparison := unary ((> | >= | < | <=) unary | [NOT] (BETWEEN unary AND unary | IN (strings) | CONTAINS string …))*
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from replicator.core.sql92 import lexer
from replicator.core.sql92.errors import FilterSyntaxError
from replicator.core.sql92.lexer import Token, tokenize
from replicator.core.sql92.terms import (
    AFFIX_TESTS,
    RELATIONS,
    Evaluate,
    Properties,
    Term,
    affixed,
    all_of,
    any_of,
    as_truth,
    equal,
    inverted,
    is_null,
    literal_term,
    member,
    negated,
    property_term,
    related,
)
from replicator.core.sql92.values import INT_MAX, LONG_MAX, Kind, NotComparable, order_of

FILTER_DEPTH_MAX = 50
"""Nesting of brackets and operators; AND and OR chains of any length count once."""

_LITERALS: dict[str, tuple[Kind, bool | None]] = {
    "TRUE": (Kind.BOOLEAN, True),
    "FALSE": (Kind.BOOLEAN, False),
    "NULL": (Kind.UNKNOWN, None),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter. ``names``: the properties it looks at."""

    text: str
    names: frozenset[str]
    _evaluate: Evaluate

    def matches(self, properties: Properties) -> bool:
        """True if the broker would deliver a message with these properties. Never raises for what a value may be."""
        try:
            return self._evaluate(properties) is True
        except NotComparable:
            # The broker logs the failed evaluation and leaves the message out.
            return False


def compile_filter(text: str) -> Filter:
    """Raises ``FilterSyntaxError`` with the position and what was expected there."""
    parser = _Parser(tokenize(text))
    evaluate = parser.parse()
    return Filter(text, frozenset(parser.names), evaluate)


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._index = 0
        self._depth = 0
        self.names: set[str] = set()

    def parse(self) -> Evaluate:
        start = self._token
        term = self._truth(self._or(), start)
        if self._token.kind != lexer.END:
            raise self._error("AND, OR or the end of the filter")
        return term.evaluate

    @property
    def _token(self) -> Token:
        return self._tokens[self._index]

    def _take(self) -> Token:
        token = self._tokens[self._index]
        self._index += 1
        return token

    def _expect(self, kind: str, expected: str) -> Token:
        if self._token.kind != kind:
            raise self._error(expected)
        return self._take()

    def _error(self, expected: str, token: Token | None = None) -> FilterSyntaxError:
        at = token or self._token
        return FilterSyntaxError(at.position, expected, str(at))

    def _bounded(self, term: Term, token: Token) -> Term:
        if term.depth > FILTER_DEPTH_MAX:
            raise self._error(f"at most {FILTER_DEPTH_MAX} operators within one another", token)
        return term

    def _truth(self, term: Term, start: Token) -> Term:
        if not term.is_truth and not term.name:
            raise self._error("a condition", start)
        return as_truth(term)

    def _or(self) -> Term:
        return self._chained(self._and, "OR", any_of)

    def _and(self) -> Term:
        return self._chained(self._equality, "AND", all_of)

    def _chained(self, operand: Callable[[], Term], keyword: str, join: Callable[[list[Term]], Term]) -> Term:
        start = self._token
        term = operand()
        if self._token.kind != keyword:
            return term
        terms = [self._truth(term, start)]
        while self._token.kind == keyword:
            self._take()
            start = self._token
            terms.append(self._truth(operand(), start))
        return self._bounded(join(terms), start)

    def _equality(self) -> Term:
        left_token = self._token
        left = self._comparison()
        while self._token.kind in ("=", "<>", "IS"):
            operator = self._take()
            left = self._null_test(left) if operator.kind == "IS" else self._equal(left, left_token, operator.kind)
            self._bounded(left, operator)
        return left

    def _null_test(self, left: Term) -> Term:
        is_negated = self._token.kind == "NOT"
        if is_negated:
            self._take()
        self._expect("NULL", "NULL" if is_negated else "NULL or NOT NULL")
        return inverted(is_null(left)) if is_negated else is_null(left)

    def _equal(self, left: Term, left_token: Token, symbol: str) -> Term:
        right_token = self._token
        right = self._comparison()
        for term, token in ((left, left_token), (right, right_token)):
            if term.is_literal and term.kind is Kind.UNKNOWN:
                raise self._error("a value that can be equal (for NULL: IS NULL)", token)
        if left.is_literal and left.is_truth and right.is_literal and not right.is_truth:
            raise self._error("TRUE, FALSE or a property", right_token)
        term = equal(left, right)
        return inverted(term) if symbol == "<>" else term

    def _comparison(self) -> Term:
        left_token = self._token
        left = self._unary()
        while True:
            operator = self._token
            if operator.kind in RELATIONS:
                self._take()
                right_token = self._token
                right = self._unary()
                self._check_number(left, left_token)
                self._check_number(right, right_token)
                left = related(left, operator.kind, right)
            elif operator.kind in ("NOT", "BETWEEN", "IN") or operator.kind in AFFIX_TESTS:
                left = self._worded(left, left_token)
            else:
                return left
            self._bounded(left, operator)

    def _worded(self, left: Term, left_token: Token) -> Term:
        is_negated = self._token.kind == "NOT"
        if is_negated:
            self._take()
        operator = self._token
        if operator.kind == "BETWEEN":
            self._take()
            return self._between(left, left_token, is_negated=is_negated)
        if operator.kind == "IN":
            self._take()
            elements = self._strings()
            if not left.name:
                raise self._error("a property on the left of IN", left_token)
            return member(left.name, elements, is_negated=is_negated)
        if operator.kind in AFFIX_TESTS:
            self._take()
            return affixed(left, operator.kind, self._string(), is_negated=is_negated)
        raise self._error("BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH after NOT")

    def _between(self, left: Term, left_token: Token, *, is_negated: bool) -> Term:
        low_token = self._token
        low = self._unary()
        self._expect("AND", "AND and the upper bound")
        high_token = self._token
        high = self._unary()
        for term, token in ((left, left_token), (low, low_token), (high, high_token)):
            self._check_number(term, token)
        if is_negated:
            return any_of([related(left, "<", low), related(left, ">", high)])
        # Only bare literals are checked: the broker takes `BETWEEN 5 AND -5`, which never matches.
        if low.is_literal and high.is_literal and order_of(high.kind, low.kind)(high.value, low.value) < 0:
            raise self._error("an upper bound that is not below the lower one", high_token)
        return all_of([related(left, ">=", low), related(left, "<=", high)])

    def _check_number(self, term: Term, token: Token) -> None:
        if term.is_truth or (term.is_literal and not term.kind.is_number):
            raise self._error("a property or a number", token)

    def _strings(self) -> list[str]:
        self._expect("(", "( and strings")
        elements = [self._string()]
        while self._token.kind == ",":
            self._take()
            elements.append(self._string())
        self._expect(")", ", or )")
        return elements

    def _string(self) -> str:
        return self._expect(lexer.STRING, "a string in single quotes").text[1:-1].replace("''", "'")

    def _unary(self) -> Term:
        token = self._token
        if token.kind not in ("+", "-", "NOT"):
            return self._primary()
        self._take()
        self._enter(token)
        start = self._token
        term = self._unary()
        self._depth -= 1
        if token.kind == "-":
            return self._bounded(negated(term), token)
        if token.kind == "NOT":
            return self._bounded(inverted(self._truth(term, start)), token)
        return term

    def _enter(self, token: Token) -> None:
        self._depth += 1
        if self._depth > FILTER_DEPTH_MAX:
            raise self._error(f"at most {FILTER_DEPTH_MAX} brackets and signs within one another", token)

    def _primary(self) -> Term:
        token = self._token
        if token.kind == "(":
            self._take()
            self._enter(token)
            term = self._or()
            self._depth -= 1
            self._expect(")", ") or an operator")
            return term
        if token.kind == lexer.NAME:
            self._take()
            self.names.add(token.text)
            return property_term(token.text)
        return self._literal(token)

    def _literal(self, token: Token) -> Term:
        if token.kind == lexer.STRING:
            return literal_term(Kind.STRING, self._string())
        if token.kind in _LITERALS:
            self._take()
            return literal_term(*_LITERALS[token.kind])
        if token.kind == lexer.DECIMAL:
            return self._whole_number(self._take())
        if token.kind == lexer.FLOATING:
            number = float(self._take().text)
            # The broker's lower limit is the smallest positive double, so that it refuses 0.0 as well.
            if not 0 < number < float("inf"):
                raise self._error("a number a double can hold (for zero: 0)", token)
            return literal_term(Kind.DOUBLE, number)
        raise self._error("a property, a number, a string, TRUE, FALSE, NULL, NOT or (")

    def _whole_number(self, token: Token) -> Term:
        digits = token.text.rstrip("lL")
        if len(digits) > len(str(LONG_MAX)) or int(digits) > LONG_MAX:
            raise self._error(f"a whole number up to {LONG_MAX}", token)
        number = int(digits)
        return literal_term(Kind.INTEGER if number <= INT_MAX else Kind.LONG, number)
