"""Origin tags: the properties a copy gets so that consumers can tell with SQL92 where a message came from.

Rules are judged in order, the first that applies to a message sets its key. A property the producer set itself under
that key is left as it is and counted.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from string import Formatter

from replicator.core.errors import InvalidInput
from replicator.core.patterns import compile_pattern, validate_pattern
from replicator.core.record import NAME_END, PAIR_END
from replicator.core.task import TagRuleSpec

TAG_RULES_MAX = 64
TAG_KEY_BYTES_MAX = 128
TAG_VALUE_BYTES_MAX = 1024

# Names RocketMQ gives a meaning to: a tag under one of them would change how a message is handled.
RESERVED_TAG_KEYS = frozenset({
    "KEYS", "TAGS", "WAIT", "DELAY", "RETRY_TOPIC", "REAL_TOPIC", "REAL_QID", "TRAN_MSG", "PGROUP", "MIN_OFFSET",
    "MAX_OFFSET", "BUYER_ID", "ORIGIN_MESSAGE_ID", "TRANSFER_FLAG", "CORRECTION_FLAG", "MQ2_FLAG", "RECONSUME_TIME",
    "MSG_REGION", "TRACE_ON", "UNIQ_KEY", "EXTEND_UNIQ_INFO", "MAX_RECONSUME_TIMES", "CONSUME_START_TIME", "INNER_NUM",
    "INNER_BASE", "DUP_INFO", "CHECK_IMMUNITY_TIME_IN_SECONDS", "TRAN_PREPARED_QUEUE_OFFSET", "__transactionId__",
    "TRANSACTION_CHECK_TIMES", "INSTANCE_ID", "CORRELATION_ID", "REPLY_TO_CLIENT", "TTL", "ARRIVE_TIME",
    "PUSH_REPLY_TIME", "CLUSTER", "MSG_TYPE", "POP_CK", "POP_CK_OFFSET", "1ST_POP_TIME", "__SHARDINGKEY",
    "PROPERTY_FORWARD_QUEUE_ID", "REDIRECT", "INNER_MULTI_DISPATCH", "INNER_MULTI_QUEUE_OFFSET", "TRACE_CONTEXT",
    "BORN_TIMESTAMP", "__BORNHOST", "__CRC32#", "DLQ_ORIGIN_TOPIC", "DLQ_ORIGIN_MESSAGE_ID",
})
RESERVED_TAG_PREFIXES = ("TIMER_", "__RMQ.")


@dataclass(frozen=True, slots=True)
class TagContext:
    """What the templates stand for. ``origin`` differs from ``source`` for relayed messages only; ``topic`` is the source
    topic, ``region`` the declared region of the origin cluster (empty: none, and then ``{region}`` is refused)."""

    origin: str
    source: str
    destination: str
    task: str
    topic: str
    region: str = ""


TEMPLATE_FIELDS = tuple(field.name for field in fields(TagContext))


@dataclass(frozen=True, slots=True)
class _Condition:
    """Sets ``pair`` if the message has property ``name`` with value ``equals``; always if ``name`` is empty."""

    pair: bytes
    name: str
    equals: str

    def applies(self, properties: Mapping[str, str]) -> bool:
        return not self.name or properties.get(self.name) == self.equals


@dataclass(frozen=True, slots=True)
class CompiledTags:
    """The rules of one topic of one flow.

    ``keys``: every key these rules may set. ``constant_suffix``: the packed properties to append to a message that has
    none of ``keys`` itself; None if that depends on the message's properties.
    """

    keys: tuple[bytes, ...]
    constant_suffix: bytes | None
    _conditions: tuple[tuple[str, tuple[_Condition, ...]], ...]

    def suffix_for(self, properties: Mapping[str, str]) -> bytes:
        """Packed properties to append to this message; keys it has already are left out."""
        return self.suffix_and_kept_count(properties)[0]

    def suffix_and_kept_count(self, properties: Mapping[str, str]) -> tuple[bytes, int]:
        """The suffix, and how many tags were not set because the message has the producer's own property of that key."""
        parts: list[bytes] = []
        kept_count = 0
        for key, conditions in self._conditions:
            pair = next((condition.pair for condition in conditions if condition.applies(properties)), None)
            if pair is None:
                continue
            if key in properties:
                kept_count += 1
            else:
                parts.append(pair)
        return b"".join(parts), kept_count


def validate_tag_rules(rules: Sequence[TagRuleSpec], reserved: Collection[str] = RESERVED_TAG_KEYS) -> None:
    """What can be judged without a message or a topic. Raises ``InvalidInput`` that names the rule by its number."""
    if len(rules) > TAG_RULES_MAX:
        raise InvalidInput(f"tags: {len(rules)} rules, at most {TAG_RULES_MAX} are allowed")
    for i, rule in enumerate(rules):
        where = f"tags[{i}]"
        _validate_key(rule.key, where, reserved)
        _validate_text(rule.value, f"{where}.value", TAG_VALUE_BYTES_MAX)
        _parse_template(rule.value, f"{where}.value")
        if rule.when_topic:
            validate_pattern(rule.when_topic, f"{where}.when.topic")
        if bool(rule.when_property_name) != bool(rule.when_property_equals):
            raise InvalidInput(f"{where}.when.property: needs both name and equals")


def compile_tags(rules: Sequence[TagRuleSpec], context: TagContext) -> CompiledTags:
    """The rules as they apply to ``context.topic``. Raises ``InvalidInput`` as ``validate_tag_rules`` does, and for a value
    that turns out empty or too long once its fields are filled in."""
    validate_tag_rules(rules)
    by_key: dict[str, list[_Condition]] = {}
    settled: set[str] = set()
    for i, rule in enumerate(rules):
        is_elsewhere = bool(rule.when_topic) and not compile_pattern(rule.when_topic)(context.topic)
        if is_elsewhere or rule.key in settled:
            continue
        value = _fill(rule.value, context, f"tags[{i}].value")
        pair = rule.key.encode() + NAME_END + value.encode() + PAIR_END
        by_key.setdefault(rule.key, []).append(_Condition(pair, rule.when_property_name, rule.when_property_equals))
        if not rule.when_property_name:
            settled.add(rule.key)
    conditions = tuple((key, tuple(of_key)) for key, of_key in by_key.items())
    is_constant = all(not of_key[0].name for _, of_key in conditions)
    return CompiledTags(
        keys=tuple(key.encode() for key in by_key),
        constant_suffix=b"".join(of_key[0].pair for _, of_key in conditions) if is_constant else None,
        _conditions=conditions,
    )


def _validate_key(key: str, where: str, reserved: Collection[str]) -> None:
    _validate_text(key, f"{where}.key", TAG_KEY_BYTES_MAX)
    if key != key.strip():
        raise InvalidInput(f"{where}.key {key!r}: begins or ends with a space")
    if key in reserved or key.startswith(RESERVED_TAG_PREFIXES):
        raise InvalidInput(f"{where}.key {key!r}: RocketMQ uses this property itself", hint="choose another key, such as origin")


def _validate_text(text: str, where: str, bytes_max: int) -> None:
    if not text:
        raise InvalidInput(f"{where}: empty")
    if NAME_END.decode() in text or PAIR_END.decode() in text:
        raise InvalidInput(f"{where} {text!r}: \\x01 and \\x02 separate properties and cannot stand in one")
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"{where} {text!r}: not valid Unicode text") from None
    if size_bytes > bytes_max:
        raise InvalidInput(f"{where}: {size_bytes} bytes, at most {bytes_max} are allowed")


def _parse_template(template: str, where: str) -> list[tuple[str, str]]:
    """Pairs of literal text and the field after it (empty: none); ``{{`` and ``}}`` stand for braces."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise InvalidInput(f"{where} {template!r}: {error}", hint="write {{ and }} for braces") from None
    pieces: list[tuple[str, str]] = []
    for text, name, spec, conversion in parsed:
        if name is not None and (name not in TEMPLATE_FIELDS or spec or conversion):
            nearest = difflib.get_close_matches(name, TEMPLATE_FIELDS, n=1, cutoff=0.0)[0]
            known = " ".join(f"{{{field}}}" for field in TEMPLATE_FIELDS)
            raise InvalidInput(
                f"{where} {template!r}: unknown field {{{name}}}, nearest is {{{nearest}}}", hint=f"fields are {known}"
            )
        pieces.append((text, name or ""))
    return pieces


def _fill(template: str, context: TagContext, where: str) -> str:
    parts: list[str] = []
    for text, name in _parse_template(template, where):
        parts.append(text)
        if not name:
            continue
        value: str = getattr(context, name)
        if not value:
            raise InvalidInput(f"{where} {template!r}: {{{name}}} is empty for this flow")
        parts.append(value)
    filled = "".join(parts)
    _validate_text(filled, where, TAG_VALUE_BYTES_MAX)
    return filled
