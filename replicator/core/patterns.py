"""Which topics a task copies, and under which name they arrive.

A pattern is an exact name, or a name with ``*`` for any run of characters (also none). Nothing else is special.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from replicator.core.errors import InvalidInput

PATTERN_CHARACTERS_MAX = 255
WILDCARD = "*"

Matcher = Callable[[str], bool]


def is_pattern(text: str) -> bool:
    """True if ``text`` may stand for more than one name."""
    return WILDCARD in text


def validate_pattern(text: str, where: str = "topic pattern") -> None:
    """Raises ``InvalidInput`` for an empty or over-long pattern and for characters no topic name has."""
    if not text:
        raise InvalidInput(f"{where}: empty")
    if len(text) > PATTERN_CHARACTERS_MAX:
        raise InvalidInput(f"{where}: {len(text)} characters, at most {PATTERN_CHARACTERS_MAX} are allowed")
    for character in text:
        if character.isspace() or not character.isprintable():
            raise InvalidInput(f"{where} {text!r}: {character!r} cannot stand in a topic name")
        if character in "?[]{}":
            raise InvalidInput(f"{where} {text!r}: {character!r} has no meaning here", hint="only * is a wildcard")


def compile_pattern(pattern: str) -> Matcher:
    """A test for names, linear in the name whatever the number of wildcards."""
    if not is_pattern(pattern):
        return lambda name: name == pattern
    head, *middle, tail = pattern.split(WILDCARD)
    pieces = tuple(piece for piece in middle if piece)
    fixed = len(head) + len(tail)

    def matches(name: str) -> bool:
        if len(name) < fixed or not name.startswith(head) or not name.endswith(tail):
            return False
        position, end = len(head), len(name) - len(tail)
        for piece in pieces:
            found = name.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True

    return matches


def patterns_may_overlap(a: str, b: str) -> bool:
    """True exactly if some name matches both patterns."""
    # States (i, j): what is left of both. A wildcard gives way, or swallows the other's next character, wildcard or not.
    reached = {0}
    for i in range(len(a) + 1):
        following: set[int] = set()
        for j in range(len(b) + 1):
            if j not in reached:
                continue
            if j < len(b) and (b[j] == WILDCARD or (i < len(a) and a[i] == WILDCARD)):
                reached.add(j + 1)
            if i < len(a) and (a[i] == WILDCARD or (j < len(b) and b[j] == WILDCARD)):
                following.add(j)
            if i < len(a) and j < len(b) and a[i] == b[j]:
                following.add(j + 1)
        if i == len(a):
            return len(b) in reached
        reached = following
    raise AssertionError("the loop answers in its last round")


@dataclass(frozen=True)
class TopicRules:
    """``include`` minus ``exclude``; ``rename`` maps exact source names to destination names. Raises ``InvalidInput``."""

    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    _included: tuple[Matcher, ...] = field(init=False, repr=False, compare=False)
    _excluded: tuple[Matcher, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.include:
            raise InvalidInput("topics.include: empty", hint='use ["*"] for every topic')
        for where, patterns in (("topics.include", self.include), ("topics.exclude", self.exclude)):
            for pattern in patterns:
                validate_pattern(pattern, where)
        self._validate_rename()
        object.__setattr__(self, "_included", tuple(map(compile_pattern, self.include)))
        object.__setattr__(self, "_excluded", tuple(map(compile_pattern, self.exclude)))

    def _validate_rename(self) -> None:
        sources: dict[str, str] = {}
        for source, destination in self.rename.items():
            for name in (source, destination):
                validate_pattern(name, "topics.rename")
                if is_pattern(name):
                    raise InvalidInput(f"topics.rename {name!r}: exact names only")
            if destination in sources:
                raise InvalidInput(f"topics.rename: {sources[destination]!r} and {source!r} both become {destination!r}")
            sources[destination] = source

    def matches(self, topic: str) -> bool:
        return any(test(topic) for test in self._included) and not any(test(topic) for test in self._excluded)

    def select(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` that are copied, sorted, each once."""
        return sorted({name for name in names if self.matches(name)})

    def destination_name(self, topic: str) -> str:
        return self.rename.get(topic, topic)

    def collisions(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Destination names that more than one of the selected ``names`` would arrive under, with those names."""
        arrivals: dict[str, list[str]] = {}
        for name in self.select(names):
            arrivals.setdefault(self.destination_name(name), []).append(name)
        return {destination: sources for destination, sources in arrivals.items() if len(sources) > 1}

    def missing(self, names: Iterable[str]) -> list[str]:
        """Exact names of ``include`` that are not among ``names``."""
        present = set(names)
        return [name for name in self.include if not is_pattern(name) and self.matches(name) and name not in present]

    def may_feed(self, other: TopicRules) -> bool:
        """True if some topic these rules copy could arrive under a name that ``other`` copies. Conservative: patterns are
        compared without their excludes, so True may be wrong where both sides are patterns, False never is."""
        for source, destination in self.rename.items():
            if self.matches(source) and other.matches(destination):
                return True
        return any(self._may_feed_unrenamed(pattern, other) for pattern in self.include)

    def _may_feed_unrenamed(self, pattern: str, other: TopicRules) -> bool:
        if not is_pattern(pattern):
            return pattern not in self.rename and self.matches(pattern) and other.matches(pattern)
        for candidate in other.include:
            if is_pattern(candidate):
                if patterns_may_overlap(pattern, candidate):
                    return True
            elif candidate not in self.rename and self.matches(candidate) and other.matches(candidate):
                return True
        return False
