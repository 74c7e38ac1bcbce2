"""The filter against the broker's documented and measured behaviour; ``test_sql92_real`` compares with a real broker."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core.errors import InvalidInput
from replicator.core.sql92 import (
    FILTER_CHARACTERS_MAX,
    FILTER_DEPTH_MAX,
    FilterSyntaxError,
    compile_filter,
    is_filterable_name,
)

PRESENT = {"a": "b", "n": "5", "d": "5.5", "big": "5000000000", "t": "true", "s": "it's", "space": " 7 "}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 'b'", True),
        ("a = 'c'", False),
        ("a <> 'c'", True),
        ("'b' = a", True),
        ("s = 'it''s'", True),
        ("n = 5", True),
        ("n > 4 and N IS NULL", True),
        ("n >= 5 AND n <= 5 AND NOT (n < 5)", True),
        ("n > -6", True),
        ("n > --4", True),
        ("n = +5", True),
        ("5 < n", False),
        ("5 > 4", True),
        ("d > 5.4", True),
        ("d > 5.", True),
        ("d < 55E-1", False),
        ("d < .56E1", True),
        ("n BETWEEN 1 AND 5", True),
        ("n NOT BETWEEN 1 AND 4", True),
        ("n BETWEEN 6 AND -6", False),
        ("a IN ('x', 'b')", True),
        ("a NOT IN ('x', 'y')", True),
        ("a IS NOT NULL", True),
        ("a IS NULL", False),
        ("t = TRUE", True),
        ("t <> FALSE", True),
        ("a = TRUE", False),
        ("TRUE", True),
        ("NULL", False),
        ("a CONTAINS 'b'", True),
        ("s STARTSWITH 'it' AND s ENDSWITH '''s'", True),
        ("s NOT CONTAINS 'x' AND s NOT STARTSWITH 'x' AND s NOT ENDSWITH 'x'", True),
        ("a CONTAINS ''", False),
        ("a NOT CONTAINS ''", False),
        ("5 CONTAINS '5'", False),
        ("a /* remark ** */ = -- more\n 'b'", True),
        ("a='b'OR(n>9)", True),
        ("$x_1 IS NULL", True),
        ("n > d OR TRUE", True),
        ("d > n", True),
        ("n <> 9223372036854775807", True),
    ],
)
def test_present_properties(text: str, expected: bool) -> None:
    assert compile_filter(text).matches(PRESENT) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m = 'b'", False),
        ("m <> 'b'", False),
        ("NOT (m = 'b')", False),
        ("m IS NULL OR m <> 'b'", True),
        ("m IS NULL", True),
        ("m IS NOT NULL", False),
        ("NOT (m IS NOT NULL)", True),
        ("m > 5", False),
        ("NOT (m > 5)", False),
        ("m NOT BETWEEN 1 AND 2", False),
        ("m NOT IN ('x')", False),
        ("(m = 'b') IS NULL", True),
        ("m = 'b' AND a = 'c'", False),
        ("(m = 'b' AND a = 'c') IS NULL", False),
        ("(m = 'b' OR a = 'c') IS NULL", True),
        ("(m = 'b' OR a = 'b') IS NULL", False),
        # Not symmetric at the broker: only a missing left side is unknown.
        ("'b' <> m", True),
        ("'b' = m", False),
        ("m = missing", True),
        ("m <> missing", False),
        ("a <> m", True),
        # Text operators are false, not unknown.
        ("m CONTAINS 'x'", False),
        ("m NOT CONTAINS 'x'", False),
        ("NOT (m CONTAINS 'x')", True),
        ("NOT (m NOT CONTAINS 'x')", True),
        ("(NOT m) IS NULL", True),
        ("-m IS NULL", True),
        ("-a IS NULL", True),
    ],
)
def test_missing_properties(text: str, expected: bool) -> None:
    assert compile_filter(text).matches(PRESENT) is expected


@pytest.mark.parametrize(
    "text",
    [
        "a > 5 OR TRUE",  # unreadable as a number: the evaluation ends, whatever follows
        "NOT (a > 5)",
        "a = 5 OR TRUE",
        "big = 5 OR TRUE",  # not a 32-bit number
        "d = 5 OR TRUE",
        "space = 7 OR TRUE",  # whole numbers take no space
        "a > n OR TRUE",
        "TRUE = t OR TRUE",
        "NOT a = 'b' OR TRUE",  # (NOT a) = 'b': a truth value beside a string
    ],
)
def test_unreadable_value_ends_the_evaluation(text: str) -> None:
    assert compile_filter(text).matches(PRESENT) is False
    assert compile_filter(f"TRUE OR {text}").matches(PRESENT) is True
    assert compile_filter(f"NOT (FALSE AND ({text}))").matches(PRESENT) is True


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        ("+5", "p = 5", True),
        ("-5", "p = -5", True),
        ("005", "p = 5", True),
        ("0" * 5000 + "5", "p = 5", True),
        ("9" * 5000, "p <> 5", False),
        ("٥", "p = 5", True),
        ("5_0", "p <> 5", False),
        ("5.0", "p <> 6", False),
        ("2147483648", "p <> 5", False),
        ("2147483648", "p = 2147483648", True),
        ("-2147483648", "p = -2147483648", True),
        ("9223372036854775808", "p <> 2147483648", False),
        (" 1.5 ", "p = 1.5", True),
        ("1.5f", "p = 1.5", True),
        ("1.5D", "p = 1.5", True),
        ("0x1.8p0", "p = 1.5", True),
        ("0x1p99999", "p > 1.5", True),
        ("0x1.8", "p <> 1.5", False),
        ("NaN", "p > 1.5", True),
        ("-Infinity", "p < 1.5", True),
        ("inf", "p <> 1.5", False),
        ("nan", "p <> 1.5", False),
        ("1_0.5", "p <> 1.5", False),
        ("1e400", "p > 1.5", True),
        ("TrUe", "p = TRUE", True),
        ("yes", "p = FALSE", True),
    ],
)
def test_values_are_read_as_java_reads_them(value: str, text: str, expected: bool) -> None:
    assert compile_filter(text).matches({"p": value}) is expected


def test_doubles_have_a_total_order() -> None:
    larger = compile_filter("x > y")
    assert larger.matches({"x": "0.0", "y": "-0.0"})
    assert not larger.matches({"x": "-0.0", "y": "0.0"})
    assert larger.matches({"x": "NaN", "y": "Infinity"})
    assert not larger.matches({"x": "NaN", "y": "NaN"})


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "a property"),
        ("   ", 3, "a property"),
        ("a", None, ""),
        ("a = ", 4, "a property"),
        ("a == 'b'", 3, "a property"),
        ("a != 'b'", 2, "<>"),
        ("a = 'b", 4, "closed"),
        ('a = "b"', 4, "a name"),
        ("a = 'b' )", 8, "end of the filter"),
        ("(a = 'b'", 8, ")"),
        ("a LIKE 'b%'", 2, "end of the filter"),
        ("a = NULL", 4, "IS NULL"),
        ("NULL <> a", 0, "IS NULL"),
        ("a > 'b'", 4, "a number"),
        ("'b' < a", 0, "a number"),
        ("a > TRUE", 4, "a number"),
        ("(a = 'b') > 1", 0, "a number"),
        ("TRUE = 'true'", 7, "TRUE"),
        ("a BETWEEN 5 AND 1", 16, "upper bound"),
        ("a BETWEEN 'a' AND 'b'", 10, "a number"),
        ("a NOT BETWEEN NULL AND 5", 14, "a number"),
        ("a BETWEEN 1 OR 5", 12, "AND"),
        ("a IN ()", 6, "string"),
        ("a IN (5)", 6, "string"),
        ("a IN ('x' 'y')", 10, ", or )"),
        ("'a' IN ('a')", 0, "a property on the left of IN"),
        ("a NOT 'x'", 6, "BETWEEN"),
        ("a IS 5", 5, "NULL"),
        ("a IS NOT 5", 9, "NULL"),
        ("a CONTAINS b", 11, "string"),
        ("'a'", 0, "a condition"),
        ("5", 0, "a condition"),
        ("-a", 0, "a condition"),
        ("NOT 5", 4, "a condition"),
        ("a = 'b' AND 5", 12, "a condition"),
        ("a = 0.0", 4, "a number a double can hold"),
        ("a = 1E999", 4, "a number a double can hold"),
        ("a = 9223372036854775808", 4, "a whole number"),
        ("a = 007", 5, "end of the filter"),
        ("a.b = 'x'", 1, "a name"),
        ("a = 'b' /* never closed", 8, "comment"),
        ("a = 'b' -- no line end", 8, "end of the filter"),
        ("a = 'b'; DROP", 7, "a name"),
    ],
)
def test_errors_name_the_place(text: str, position: int | None, expected: str) -> None:
    if position is None:
        assert compile_filter(text).matches({"a": "true"}) is False
        return
    with pytest.raises(FilterSyntaxError) as caught:
        compile_filter(text)
    assert (caught.value.position, expected in caught.value.expected) == (position, True), str(caught.value)
    assert f"character {position + 1}" in str(caught.value)
    assert isinstance(caught.value, InvalidInput)


def test_bounds() -> None:
    with pytest.raises(FilterSyntaxError, match="characters"):
        compile_filter("a = '" + "x" * FILTER_CHARACTERS_MAX + "'")
    for opening, closing in (("(", ")"), ("NOT ", ""), ("-", " IS NULL"), ("+", " IS NULL")):
        fine, deep = FILTER_DEPTH_MAX - 2, FILTER_DEPTH_MAX + 1
        compile_filter(opening * fine + "a" + (closing * fine if closing == ")" else closing))
        with pytest.raises(FilterSyntaxError, match="at most 50"):
            compile_filter(opening * deep + "a" + (closing * deep if closing == ")" else closing))
    with pytest.raises(FilterSyntaxError, match="at most 50"):
        compile_filter("a" + " IS NULL" * (FILTER_DEPTH_MAX + 1))


def test_long_chains_are_flat() -> None:
    either = compile_filter(" OR ".join(f"a='{i}'" for i in range(600)))
    assert either.matches({"a": "599"})
    assert not either.matches({"a": "600"})
    both = compile_filter(" AND ".join(f"a<>'{i}'" for i in range(600)))
    assert both.matches({"a": "600"})
    assert not both.matches({"a": "599"})


def test_names_and_text() -> None:
    compiled = compile_filter("a = 'x' OR (b IN ('y') AND NOT c) OR d IS NULL OR a > e")
    assert compiled.names == {"a", "b", "c", "d", "e"}
    assert compiled.text.startswith("a = 'x'")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("origin", True), ("$a_1", True), ("x-y", False), ("Not", False), ("1a", False), ("", False)],
)
def test_filterable_names(name: str, expected: bool) -> None:
    assert is_filterable_name(name) is expected


# A second, independent account of three-valued logic: unknown is one half, AND is the minimum, OR the maximum.
Model = tuple[str, float]
PROPERTIES = {"p": "1"}
ATOMS: list[Model] = [
    ("p = '1'", 1.0), ("p = 1", 1.0), ("p = '2'", 0.0), ("p > 3", 0.0), ("TRUE", 1.0), ("FALSE", 0.0),
    ("NULL", 0.5), ("q = '1'", 0.5), ("q <> '1'", 0.5), ("q > 3", 0.5), ("q IN ('1')", 0.5), ("q", 0.5), ("p", 0.0),
]


def _join(word: str, fold: object) -> object:
    assert callable(fold)
    return lambda parts: (f" {word} ".join(f"({text})" for text, _ in parts), fold(value for _, value in parts))


EXPRESSIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(_join("AND", min)),
        st.lists(inner, min_size=2, max_size=4).map(_join("OR", max)),
        inner.map(lambda part: (f"NOT ({part[0]})", 1.0 - part[1])),
        inner.map(lambda part: (f"({part[0]}) IS NULL", float(part[1] == 0.5)) if part[0] not in ("p", "q") else part),
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
@settings(max_examples=300)
def test_three_valued_logic(expression: Model) -> None:
    text, value = expression
    assert compile_filter(text).matches(PROPERTIES) is (value == 1.0)
    assert compile_filter(f"NOT ({text})").matches(PROPERTIES) is (value == 0.0)


def test_precedence_without_brackets() -> None:
    for text, expected in (
        ("TRUE OR FALSE AND FALSE", True),
        ("FALSE AND TRUE OR TRUE", True),
        ("NOT FALSE AND FALSE", False),
        ("p = '2' OR p = '1' AND p = '1'", True),
        ("p BETWEEN 0 AND 1 AND p = '1'", True),
    ):
        assert compile_filter(text).matches(PROPERTIES) is expected, text


FRAGMENTS = st.sampled_from([
    "a", "b1", "'x'", "'it''s'", "5", "0", "5L", "1.5", "1E3", ".5", "99999999999999999999", "TRUE", "false", "NULL", "AND", "OR",
    "NOT", "BETWEEN", "IN", "IS", "CONTAINS", "startswith", "ENDSWITH", "=", "<>", ">", ">=", "<", "<=", "(", ")", ",", "+", "-",
    "--", "\n", "/*", "*/", "'", "!", "",
])
VALUES = st.one_of(st.text(max_size=8), st.integers().map(str), st.floats().map(str), st.sampled_from(["true", "0x1p3", "-0.0", "5"]))


@given(st.one_of(st.text(max_size=60), st.lists(FRAGMENTS, max_size=30).map(" ".join)), st.dictionaries(st.sampled_from("ab"), VALUES))
@settings(max_examples=500)
def test_garbage_raises_only_its_own_error(text: str, properties: dict[str, str]) -> None:
    outcome: FilterSyntaxError | bool
    try:
        outcome = compile_filter(text).matches(properties)
    except FilterSyntaxError as refusal:
        outcome = refusal
    assert isinstance(outcome, bool) or 0 <= outcome.position <= len(text)


@given(st.sampled_from(["=", "<>", ">", ">=", "<", "<="]), st.integers(-(2**31) + 1, 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_whole_numbers_compare_exactly(symbol: str, value: int, literal: int) -> None:
    expected = {
        "=": value == literal, "<>": value != literal, ">": value > literal,
        ">=": value >= literal, "<": value < literal, "<=": value <= literal,
    }[symbol]
    assert compile_filter(f"p {symbol} {literal}").matches({"p": str(value)}) is expected
