from __future__ import annotations

import itertools
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core.errors import InvalidInput
from replicator.core.patterns import TopicRules, compile_pattern, patterns_may_overlap

NAMES = ["".join(letters) for size in range(6) for letters in itertools.product("ab", repeat=size)]
NON_EMPTY = [name for name in NAMES if name]
PATTERNS = st.text("ab*", max_size=4)
SHORT_PATTERNS = st.text("ab*", min_size=1, max_size=3)


def matches_by_regex(pattern: str, name: str) -> bool:
    return re.fullmatch(pattern.replace("*", ".*"), name) is not None


@given(PATTERNS)
def test_matching_against_a_regular_expression(pattern: str) -> None:
    matches = compile_pattern(pattern)
    for name in NAMES:
        assert matches(name) is matches_by_regex(pattern, name), name


@given(PATTERNS, PATTERNS)
@settings(max_examples=300)
def test_overlap_against_brute_force(a: str, b: str) -> None:
    # Two patterns of up to 4 characters that overlap at all share a name of at most 8; 5 suffice for 4 characters in all but
    # the doubly wild cases, so longer names are built from the patterns themselves.
    candidates = [*NAMES, *(x.replace("*", y.replace("*", "")) for x, y in ((a, b), (b, a)))]
    letters = (a.replace("*", ""), b.replace("*", ""))
    candidates += ["".join(parts) for parts in itertools.permutations(letters)]
    candidates += ["".join(p) for n in range(6, 9) for p in itertools.product("ab", repeat=n)]
    brute = any(matches_by_regex(a, name) and matches_by_regex(b, name) for name in candidates)
    assert patterns_may_overlap(a, b) is brute
    assert patterns_may_overlap(b, a) is brute


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("orders", "orders", True),
        ("orders", "order", False),
        ("pay-*", "*-cn", True),
        ("pay-*", "ship-*", False),
        ("a*b", "b*a", False),
        ("*a*", "*b*", True),
        ("*", "x", True),
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("a*ca", "a*cb", False),
    ],
)
def test_overlap_examples(a: str, b: str, expected: bool) -> None:
    assert patterns_may_overlap(a, b) is expected


def test_many_wildcards_stay_fast() -> None:
    started = time.monotonic()
    assert not compile_pattern("*a" * 100 + "b")("a" * 250)
    assert patterns_may_overlap("*a" * 120, "*b" * 120 + "*")
    assert time.monotonic() - started < 5


def test_select_is_sorted_and_unique() -> None:
    rules = TopicRules(("pay-*", "orders"), ("pay-test*",))
    assert rules.select(["pay-b", "orders", "pay-a", "pay-test1", "other", "orders"]) == ["orders", "pay-a", "pay-b"]
    assert rules.matches("orders")
    assert not rules.matches("Orders")
    assert rules.missing(["pay-a"]) == ["orders"]
    assert TopicRules(("orders",), ("ord*",)).missing([]) == []


def test_rename_and_collisions() -> None:
    rules = TopicRules(("*",), rename={"orders": "orders-cn"})
    assert rules.destination_name("orders") == "orders-cn"
    assert rules.destination_name("other") == "other"
    assert rules.collisions(["orders", "other"]) == {}
    assert rules.collisions(["orders", "orders-cn"]) == {"orders-cn": ["orders", "orders-cn"]}


@pytest.mark.parametrize(
    ("include", "exclude", "rename", "message"),
    [
        ((), (), {}, "include: empty"),
        (("",), (), {}, "include: empty"),
        (("a b",), (), {}, "cannot stand"),
        (("a\n",), (), {}, "cannot stand"),
        (("a?",), (), {}, r"only \* is"),
        (("x" * 256,), (), {}, "at most 255"),
        (("a",), ("",), {}, "exclude: empty"),
        (("a",), (), {"a*": "b"}, "exact names only"),
        (("a",), (), {"a": "b*"}, "exact names only"),
        (("a", "b"), (), {"a": "c", "b": "c"}, "both become"),
    ],
)
def test_invalid_rules(include: tuple[str, ...], exclude: tuple[str, ...], rename: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        TopicRules(include, exclude, rename)


RULES = st.builds(
    TopicRules,
    st.lists(SHORT_PATTERNS, min_size=1, max_size=2).map(tuple),
    st.lists(SHORT_PATTERNS, max_size=1).map(tuple),
    st.dictionaries(st.sampled_from(["a", "ab", "b"]), st.sampled_from(["aa", "bb"]), max_size=1),
)


@given(RULES, RULES)
@settings(max_examples=300)
def test_may_feed_never_misses(first: TopicRules, second: TopicRules) -> None:
    feeds = any(first.matches(name) and second.matches(first.destination_name(name)) for name in NON_EMPTY)
    if feeds:
        assert first.may_feed(second)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (TopicRules(("orders",)), TopicRules(("orders",)), True),
        (TopicRules(("orders",), rename={"orders": "orders-cn"}), TopicRules(("orders",)), False),
        (TopicRules(("orders",), rename={"orders": "orders-cn"}), TopicRules(("*-cn",)), True),
        (TopicRules(("orders",)), TopicRules(("*",), ("ord*",)), False),
        (TopicRules(("*",), ("orders",)), TopicRules(("orders",)), False),
        (TopicRules(("*",), rename={"orders": "x"}), TopicRules(("orders",)), False),
        (TopicRules(("pay-*",)), TopicRules(("*-cn",)), True),
        (TopicRules(("pay-*",)), TopicRules(("ship-*",)), False),
    ],
)
def test_may_feed_examples(first: TopicRules, second: TopicRules, expected: bool) -> None:
    assert first.may_feed(second) is expected
