"""What the parser builds: terms that evaluate to a value, to a truth value, or to None for unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from replicator.core.sql92.values import Kind, Order, Value, order_numeric_strings, order_of

Properties = Mapping[str, str]
Evaluate = Callable[[Properties], Value]

RELATIONS: dict[str, Callable[[int], bool]] = {
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
}
AFFIX_TESTS: dict[str, Callable[[str, str], bool]] = {
    "CONTAINS": lambda text, search: search in text,
    "STARTSWITH": lambda text, search: text.startswith(search),
    "ENDSWITH": lambda text, search: text.endswith(search),
}


@dataclass(frozen=True, slots=True)
class Term:
    """``is_literal``, ``is_truth`` and ``name`` decide where the broker's grammar allows a term; ``value`` is a literal's own."""

    evaluate: Evaluate
    kind: Kind
    depth: int = 1
    is_literal: bool = False
    is_truth: bool = False
    name: str = ""
    value: Value = None


def property_term(name: str) -> Term:
    return Term(lambda properties: properties.get(name), Kind.STRING, name=name)


def literal_term(kind: Kind, value: Value) -> Term:
    is_truth = kind in (Kind.BOOLEAN, Kind.UNKNOWN)
    return Term(lambda properties: value, kind, is_literal=True, is_truth=is_truth, value=value)


def truth_term(evaluate: Evaluate, depth: int) -> Term:
    return Term(evaluate, Kind.BOOLEAN, depth=depth, is_truth=True)


def negated(term: Term) -> Term:
    """Minus a number; minus anything else is unknown, but it is evaluated and may end the evaluation."""
    if term.kind.is_number:
        value = -term.value if isinstance(term.value, int | float) else None
        return Term(lambda properties: value, term.kind, depth=term.depth + 1, value=value)
    inner = term.evaluate

    def evaluate(properties: Properties) -> Value:
        inner(properties)
        return None

    return Term(evaluate, Kind.UNKNOWN, depth=term.depth + 1)


def as_truth(term: Term) -> Term:
    """A bare property as a condition: a string is never true, only missing (unknown) or false."""
    if term.is_truth:
        return term
    inner = term.evaluate
    return truth_term(lambda properties: None if inner(properties) is None else False, term.depth + 1)


def inverted(term: Term) -> Term:
    inner = term.evaluate

    def evaluate(properties: Properties) -> Value:
        value = inner(properties)
        return None if value is None else not value

    return truth_term(evaluate, term.depth + 1)


def all_of(terms: Sequence[Term]) -> Term:
    return _chain(terms, stop_at=False)


def any_of(terms: Sequence[Term]) -> Term:
    return _chain(terms, stop_at=True)


def _chain(terms: Sequence[Term], *, stop_at: bool) -> Term:
    """Left to right, ends at the first ``stop_at``: what stands after it is not evaluated and cannot fail."""
    parts = tuple(term.evaluate for term in terms)

    def evaluate(properties: Properties) -> Value:
        is_known = True
        for part in parts:
            value = part(properties)
            if value is stop_at:
                return stop_at
            if value is None:
                is_known = False
        return (not stop_at) if is_known else None

    return truth_term(evaluate, max(term.depth for term in terms) + 1)


def equal(left: Term, right: Term) -> Term:
    """Not symmetric: missing on the left is unknown, missing on the right alone is false, missing on both is true."""
    left_value, right_value = left.evaluate, right.evaluate
    order: Order = order_of(left.kind, right.kind)

    def evaluate(properties: Properties) -> Value:
        a, b = left_value(properties), right_value(properties)
        if a is None:
            return True if b is None else None
        return b is not None and order(a, b) == 0

    return truth_term(evaluate, max(left.depth, right.depth) + 1)


def is_null(term: Term) -> Term:
    inner = term.evaluate
    return truth_term(lambda properties: inner(properties) is None, term.depth + 1)


def related(left: Term, symbol: str, right: Term) -> Term:
    """``left symbol right`` for > >= < <=; unknown if either is missing, the right side not evaluated if the left is."""
    left_value, right_value, test = left.evaluate, right.evaluate, RELATIONS[symbol]
    is_strings = left.kind is Kind.STRING and right.kind is Kind.STRING
    order = order_numeric_strings if is_strings else order_of(left.kind, right.kind)

    def evaluate(properties: Properties) -> Value:
        a = left_value(properties)
        if a is None:
            return None
        b = right_value(properties)
        return None if b is None else test(order(a, b))

    return truth_term(evaluate, max(left.depth, right.depth) + 1)


def member(name: str, elements: Sequence[str], *, is_negated: bool) -> Term:
    accepted = frozenset(elements)

    def evaluate(properties: Properties) -> Value:
        value = properties.get(name)
        return None if value is None else (value in accepted) is not is_negated

    return truth_term(evaluate, 2)


def affixed(term: Term, keyword: str, search: str, *, is_negated: bool) -> Term:
    """CONTAINS and its kin: false, never unknown, for a missing value, a value that is no string, or an empty search."""
    inner, test = term.evaluate, AFFIX_TESTS[keyword]

    def evaluate(properties: Properties) -> Value:
        if not search:
            return False
        value = inner(properties)
        return isinstance(value, str) and test(value, search) is not is_negated

    return truth_term(evaluate, term.depth + 1)
