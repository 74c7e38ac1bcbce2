"""RocketMQ's SQL92 message filter, evaluated here as the broker evaluates it.

``compile_filter`` turns a filter's text into closures; there is no ``eval``. The semantics are those of the broker, its
surprises included, because a consumer that uses the same expression at the broker must see the same messages:

- a missing property is unknown (three-valued logic): neither ``origin <> 'b'`` nor ``NOT (origin = 'b')`` matches a message
  without ``origin``; write ``origin IS NULL OR origin <> 'b'``;
- properties are strings; beside a number they are read as that kind of number (``100``: 32-bit integer, above 2147483647:
  64-bit, ``1.5``: double); one that cannot be read so ends the evaluation, so that nothing after an OR is looked at: no match;
- NOT binds tighter than ``=``: ``NOT a = 'b'`` never matches, ``NOT (a = 'b')`` is meant;
- missing CONTAINS, STARTSWITH, ENDSWITH and their NOT forms are false, not unknown.

One difference is deliberate: the broker silently ignores whatever follows a complete expression (``a = 'b' LIKE 'c'``);
here that is a ``FilterSyntaxError``.
"""

from replicator.core.sql92.errors import FilterSyntaxError
from replicator.core.sql92.lexer import FILTER_CHARACTERS_MAX, is_filterable_name
from replicator.core.sql92.parser import FILTER_DEPTH_MAX, Filter, compile_filter

__all__ = [
    "FILTER_CHARACTERS_MAX",
    "FILTER_DEPTH_MAX",
    "Filter",
    "FilterSyntaxError",
    "compile_filter",
    "is_filterable_name",
]
