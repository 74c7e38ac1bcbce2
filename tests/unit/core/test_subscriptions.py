"""Groups whose offsets mean the same on another cluster, and those whose do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.subscriptions import Carried, Subscription, meaning, never_synced
from replicator.core.task import ProgressSpec
from tests.unit.core.examples import examples

ALL = Subscription()
PAID = Subscription("TagA || TagB")
SQL = Subscription("amount > 100", "SQL92")


def judged(owning, written, *, two_way=True, group="billing", spec=None, changed=("origin",)):
    return meaning(
        group, spec or ProgressSpec(), is_two_way=two_way, owning=owning, written=written, changed_properties=changed,
    )


@pytest.mark.parametrize(
    "group", ["replicator-orders-shanghai", "replicator-reader", "CID_RMQ_SYS_TRANS", "TOOLS_CONSUMER", "billing@broadcast"]
)
@pytest.mark.parametrize("include", [("*",), ("CID_*", "T*", "r*", "b*")])
def test_names_that_are_never_synced_whatever_is_selected(group, include):
    assert never_synced(group)
    answer = judged(ALL, ALL, group=group, spec=ProgressSpec(include=include))
    assert answer.carried is Carried.NEVER
    assert answer.reason


@pytest.mark.parametrize("group", ["billing", "CID_billing", "my-replicator-", "tools_consumer", "broadcast"])
def test_ordinary_names_pass(group):
    assert never_synced(group) == ""


def test_selection_by_patterns():
    spec = ProgressSpec(include=("bill*", "audit"), exclude=("billing-test",), local=("bill-local*",))
    assert judged(ALL, ALL, group="billing", spec=spec).carried is Carried.SYNCED
    assert judged(ALL, ALL, group="billing-test", spec=spec).carried is Carried.EXCLUDED
    assert judged(ALL, ALL, group="other", spec=spec).carried is Carried.EXCLUDED
    assert judged(ALL, ALL, group="bill-local-1", spec=spec).carried is Carried.LOCAL


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ALL, Subscription("")),
        (PAID, Subscription("TagB||TagA")),
        (PAID, Subscription(" TagA ||TagB || ")),
        (SQL, Subscription(" amount > 100 ", "SQL92")),
    ],
)
@pytest.mark.parametrize("two_way", [True, False])
def test_one_expression_in_two_spellings_is_the_same(one, other, two_way):
    assert judged(one, other, two_way=two_way).carried is Carried.SYNCED
    assert judged(other, one, two_way=two_way).carried is Carried.SYNCED


@pytest.mark.parametrize(
    ("one", "other"),
    [(ALL, PAID), (PAID, Subscription("TagA")), (ALL, SQL), (SQL, Subscription("amount > 101", "SQL92")), (PAID, Subscription("TagA||*"))],
)
@pytest.mark.parametrize("two_way", [True, False])
def test_different_expressions_are_local(one, other, two_way):
    for answer in (judged(one, other, two_way=two_way), judged(other, one, two_way=two_way)):
        assert answer.carried is Carried.LOCAL
        assert "different expressions" in answer.reason


@pytest.mark.parametrize("expression", ["origin = 'b'", "origin IS NULL OR amount > 3", "NOT (__rep IS NULL)", "tier = 'gold'"])
@pytest.mark.parametrize("two_way", [True, False])
def test_an_expression_that_names_a_stamped_property_is_local(expression, two_way):
    naming = Subscription(expression, "SQL92")
    for owning, written in ((naming, naming), (naming, None), (ALL, naming)):
        answer = judged(owning, written, two_way=two_way, changed=("origin", "tier"))
        assert answer.carried is Carried.LOCAL
        assert "names" in answer.reason


def test_a_value_that_looks_like_a_stamped_property_names_nothing():
    quoted = Subscription("region = 'origin'", "SQL92")
    assert judged(quoted, quoted).carried is Carried.SYNCED


def test_a_group_nobody_was_seen_of_is_local_in_a_two_way_task_only():
    assert judged(None, None).carried is Carried.LOCAL
    assert judged(None, ALL).carried is Carried.LOCAL
    assert judged(None, None, two_way=False).carried is Carried.SYNCED
    assert judged(PAID, None).carried is Carried.SYNCED


@pytest.mark.parametrize("odd", [Subscription("x", "CLASS"), Subscription("amount >", "SQL92"), Subscription(is_broadcast=True)])
def test_what_cannot_be_judged_is_local(odd):
    for answer in (judged(odd, odd), judged(odd, None, two_way=False), judged(ALL, odd)):
        assert answer.carried is Carried.LOCAL
        assert answer.reason


tags = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4)


@examples(100)
@given(tags, tags, st.booleans())
def test_tag_expressions_are_the_same_exactly_if_they_match_the_same_messages(one, other, two_way):
    def matches(chosen, tag):
        return not chosen or tag in chosen

    same = all(matches(one, tag) == matches(other, tag) for tag in ("a", "b", "c", "d"))
    answer = judged(Subscription("||".join(one)), Subscription(" || ".join(other)), two_way=two_way)
    assert (answer.carried is Carried.SYNCED) == same
