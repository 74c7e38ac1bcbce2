from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import InvalidInput
from replicator.core.record import pack_properties, parse_properties
from replicator.core.sql92 import is_filterable_name
from replicator.core.tags import (
    RESERVED_TAG_KEYS,
    TAG_KEY_BYTES_MAX,
    TAG_RULES_MAX,
    TAG_VALUE_BYTES_MAX,
    TagContext,
    compile_tags,
    validate_tag_rules,
)
from replicator.core.task import DEFAULT_TAGS, TagRuleSpec

CONTEXT = TagContext("hangzhou", "shanghai", "beijing", "orders", "pay-1", "cn-hangzhou")
CONDITIONAL = TagRuleSpec("tier", "gold", when_property_name="level", when_property_equals="1")


def test_default_names_the_origin() -> None:
    tags = compile_tags(DEFAULT_TAGS, CONTEXT)
    assert tags.constant_suffix == b"origin\x01hangzhou\x02"
    assert tags.keys == (b"origin",)
    assert tags.suffix_for({}) == tags.constant_suffix


def test_templates() -> None:
    rule = TagRuleSpec("all", "{origin}/{source}/{destination}/{task}/{topic}/{region} {{x}}")
    expected = "hangzhou/shanghai/beijing/orders/pay-1/cn-hangzhou {x}"
    assert compile_tags([rule], CONTEXT).suffix_for({}) == pack_properties({"all": expected})


def test_first_matching_rule_wins() -> None:
    rules = [TagRuleSpec("k", "no", when_topic="ship-*"), TagRuleSpec("k", "first", when_topic="pay-*"), TagRuleSpec("k", "second")]
    assert compile_tags(rules, CONTEXT).constant_suffix == b"k\x01first\x02"
    assert compile_tags(rules, replace(CONTEXT, topic="ship-1")).constant_suffix == b"k\x01no\x02"
    assert compile_tags(rules, replace(CONTEXT, topic="x")).constant_suffix == b"k\x01second\x02"


def test_rules_on_properties_are_judged_for_each_message() -> None:
    tags = compile_tags([*DEFAULT_TAGS, CONDITIONAL, TagRuleSpec("tier", "plain")], CONTEXT)
    assert tags.constant_suffix is None
    assert tags.keys == (b"origin", b"tier")
    assert tags.suffix_for({"level": "1"}) == b"origin\x01hangzhou\x02tier\x01gold\x02"
    assert tags.suffix_for({"level": "2"}) == b"origin\x01hangzhou\x02tier\x01plain\x02"
    assert compile_tags([CONDITIONAL], CONTEXT).suffix_for({}) == b""


def test_unconditional_rule_in_front_makes_it_constant() -> None:
    tags = compile_tags([TagRuleSpec("tier", "plain"), CONDITIONAL], CONTEXT)
    assert tags.constant_suffix == b"tier\x01plain\x02"
    assert tags.suffix_for({"level": "1"}) == b"tier\x01plain\x02"


def test_no_rules_and_rules_of_other_topics() -> None:
    for rules in ((), (TagRuleSpec("k", "v", when_topic="ship-*"),)):
        tags = compile_tags(rules, CONTEXT)
        assert (tags.constant_suffix, tags.keys, tags.suffix_for({})) == (b"", (), b"")


def test_producers_own_property_is_kept_and_counted() -> None:
    tags = compile_tags([*DEFAULT_TAGS, CONDITIONAL], CONTEXT)
    assert tags.suffix_and_kept_count({"origin": "mine", "level": "1"}) == (b"tier\x01gold\x02", 1)
    assert tags.suffix_and_kept_count({"origin": "mine", "tier": "own", "level": "1"}) == (b"", 2)
    # A tag that would not have been set is not counted as kept.
    assert tags.suffix_and_kept_count({"tier": "own", "level": "2"}) == (b"origin\x01hangzhou\x02", 0)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (TagRuleSpec("", "v"), r"tags\[0\].key: empty"),
        (TagRuleSpec("k", ""), r"tags\[0\].value: empty"),
        (TagRuleSpec("a\x01b", "v"), "separate properties"),
        (TagRuleSpec("k", "a\x02b"), "separate properties"),
        (TagRuleSpec("k", "\ud800"), "not valid Unicode"),
        (TagRuleSpec(" k", "v"), "space"),
        (TagRuleSpec("x" * (TAG_KEY_BYTES_MAX + 1), "v"), "at most 128"),
        (TagRuleSpec("k", "é" * (TAG_VALUE_BYTES_MAX // 2 + 1)), "at most 1024"),
        (TagRuleSpec("TAGS", "v"), "RocketMQ uses"),
        (TagRuleSpec("TIMER_DELIVER_MS", "v"), "RocketMQ uses"),
        (TagRuleSpec("k", "{orgin}"), r"unknown field \{orgin\}, nearest is \{origin\}"),
        (TagRuleSpec("k", "{regoin}"), r"nearest is \{region\}"),
        (TagRuleSpec("k", "{}"), "unknown field"),
        (TagRuleSpec("k", "{origin!r}"), "unknown field"),
        (TagRuleSpec("k", "{origin:>9}"), "unknown field"),
        (TagRuleSpec("k", "{origin.__class__}"), "unknown field"),
        (TagRuleSpec("k", "{origin"), "for braces"),
        (TagRuleSpec("k", "v", when_topic="a b"), "when.topic"),
        (TagRuleSpec("k", "v", when_property_name="level"), "both name and equals"),
        (TagRuleSpec("k", "v", when_property_equals="1"), "both name and equals"),
    ],
)
def test_invalid_rules(rule: TagRuleSpec, message: str) -> None:
    for judge in (validate_tag_rules, lambda rules: compile_tags(rules, CONTEXT)):
        with pytest.raises(InvalidInput, match=message):
            judge([rule])


def test_value_is_judged_once_filled_in() -> None:
    with pytest.raises(InvalidInput, match=r"\{region\} is empty"):
        compile_tags([TagRuleSpec("k", "{region}")], replace(CONTEXT, region=""))
    with pytest.raises(InvalidInput, match="at most 1024"):
        compile_tags([TagRuleSpec("k", "{task}")], replace(CONTEXT, task="x" * 1025))
    with pytest.raises(InvalidInput, match="rules"):
        validate_tag_rules([TagRuleSpec("k", "v")] * (TAG_RULES_MAX + 1))


def test_reserved_names_can_be_extended() -> None:
    with pytest.raises(InvalidInput, match="RocketMQ uses"):
        validate_tag_rules([TagRuleSpec("own", "v")], reserved=RESERVED_TAG_KEYS | {"own"})


KEYS = st.sampled_from(["origin", "tier", "zone"])
RULES = st.lists(
    st.one_of(
        st.builds(TagRuleSpec, KEYS, st.sampled_from(["{source}", "x"]), st.sampled_from(["", "pay-*", "ship-*"])),
        st.builds(
            TagRuleSpec, KEYS, st.just("conditional"), st.sampled_from(["", "pay-*"]), st.just("level"), st.sampled_from(["1", "2"])
        ),
    ),
    max_size=6,
)


@given(RULES, st.dictionaries(st.sampled_from(["origin", "level", "other"]), st.sampled_from(["1", "2", "x"])))
def test_against_a_plain_reading_of_the_rules(rules: list[TagRuleSpec], properties: dict[str, str]) -> None:
    expected: dict[str, str] = {}
    for rule in rules:
        applies = rule.when_topic in ("", "pay-*") and (
            not rule.when_property_name or properties.get(rule.when_property_name) == rule.when_property_equals
        )
        if applies:
            expected.setdefault(rule.key, rule.value.replace("{source}", "shanghai"))
    kept = {key for key in expected if key in properties}
    tags = compile_tags(rules, CONTEXT)
    suffix, kept_count = tags.suffix_and_kept_count(properties)
    assert parse_properties(suffix) == {key: value for key, value in expected.items() if key not in kept}
    assert kept_count == len(kept)
    if tags.constant_suffix is not None and not kept:
        assert suffix == tags.constant_suffix


def test_the_default_key_can_be_filtered_on() -> None:
    assert all(is_filterable_name(rule.key) for rule in DEFAULT_TAGS)
