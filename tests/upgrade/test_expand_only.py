"""Migrations only expand, so that the release before works on the new schema while processes are exchanged one after the other."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from unittest.mock import patch

import pytest

import migrations.versions

REVISIONS = sorted(path.stem for path in Path(migrations.versions.__file__).parent.glob("[0-9]*.py"))
ALLOWED: dict[str, str] = {}
"""revision -> why what it takes away is used by no release any more."""

_TAKES_AWAY = re.compile(
    r"\bDROP\b(?!\s+(?:DEFAULT|NOT\s+NULL))|\bRENAME\b|\bTRUNCATE\b|\bDELETE\s+FROM\b|\bSET\s+NOT\s+NULL\b|\bALTER\s+COLUMN\s+\w+\s+(?:SET\s+DATA\s+)?TYPE\b",
    re.IGNORECASE,
)
_ADDED_COLUMN = re.compile(r"\bADD\s+(?:COLUMN\s+)(?:IF\s+NOT\s+EXISTS\s+)?(\w+)([^,]*)", re.IGNORECASE)
_ADDED_RULE = re.compile(
    r"\bALTER\s+TABLE\s+(\w+)\b.*\bADD\s+(?:CONSTRAINT|UNIQUE|PRIMARY|FOREIGN|CHECK|EXCLUDE)\b", re.IGNORECASE | re.DOTALL
)
_UNIQUE_INDEX = re.compile(r"\bCREATE\s+UNIQUE\s+INDEX\s+\w+\s+ON\s+(\w+)", re.IGNORECASE)
_NEW_TABLE = re.compile(r"\bCREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)", re.IGNORECASE)


def contractions(statements: list[str]) -> list[str]:
    """Statements that code which does not know them would stumble over."""
    new = {name for statement in statements for name in _NEW_TABLE.findall(statement)}
    found = []
    for statement in statements:
        columns = _ADDED_COLUMN.findall(statement)
        strict = [name for name, rest in columns if re.search(r"NOT\s+NULL", rest, re.I) and not re.search(r"\bDEFAULT\b", rest, re.I)]
        ruled = {*_ADDED_RULE.findall(statement), *_UNIQUE_INDEX.findall(statement)} - new
        if _TAKES_AWAY.search(statement) or strict or ruled:
            found.append(statement)
    return found


def statements_of(revision: str) -> list[str]:
    module = importlib.import_module(f"migrations.versions.{revision}")
    with patch.object(module, "op") as op:
        module.upgrade()
    called = {call[0] for call in op.mock_calls}
    assert called <= {"execute"}, f"{revision} does {called - {'execute'}}: this test reads SQL only"
    return [str(call.args[0]) for call in op.execute.call_args_list]


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_migration_only_expands(revision):
    statements = statements_of(revision)
    assert statements
    assert [one for one in contractions(statements) if revision[:4] not in ALLOWED] == []


@pytest.mark.parametrize("statement", [
    "ALTER TABLE flows DROP COLUMN paused", "DROP TABLE flows", "ALTER TABLE flows RENAME COLUMN a TO b", "DROP INDEX flows_living",
    "ALTER TABLE flows ALTER COLUMN a TYPE bigint", "ALTER TABLE flows ALTER COLUMN a SET NOT NULL", "DELETE FROM flows",
    "ALTER TABLE flows ADD COLUMN a text NOT NULL", "ALTER TABLE flows ADD COLUMN a text DEFAULT '', ADD COLUMN b text NOT NULL",
    "ALTER TABLE flows ADD CONSTRAINT one CHECK (a > 0)", "CREATE UNIQUE INDEX one ON flows (a)",
])  # fmt: skip
def test_what_takes_away_is_found(statement):
    assert contractions([statement]) == [statement]


@pytest.mark.parametrize("statements", [
    ["ALTER TABLE flows ADD COLUMN a jsonb"], ["ALTER TABLE flows ADD COLUMN a bigint NOT NULL DEFAULT 0"],
    ["CREATE TABLE fresh (a text NOT NULL)", "CREATE UNIQUE INDEX fresh_a ON fresh (a)"], ["CREATE INDEX flows_a ON flows (a)"],
    ["ALTER TABLE flows ALTER COLUMN a DROP NOT NULL"],
])  # fmt: skip
def test_what_expands_passes(statements):
    assert contractions(statements) == []
