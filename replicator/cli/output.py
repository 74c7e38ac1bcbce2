"""How results are shown: tables for a person, JSON or YAML for a program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNKNOWN = "-"


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Format, typer.Option("-o", "--output", help="How to show it.")]


def show(data: Any, output: Format, *, empty: str = "nothing") -> None:
    if output is Format.JSON:
        print(json.dumps(data, indent=2, ensure_ascii=False, default=str))
    elif output is Format.YAML:
        print(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), end="")
    else:
        show_table(data, empty=empty)


def console() -> Console:
    """Piped output is as wide as it has to be: a cut name is of no use to the next program."""
    found = Console()
    return found if found.is_terminal else Console(width=400, soft_wrap=True)


def show_table(data: Any, *, empty: str = "nothing", title: str = "") -> None:
    if isinstance(data, Mapping):
        _show_mapping(data)
    elif not isinstance(data, Sequence) or isinstance(data, str):
        print(cell(data))
    elif not data:
        print(f"{title}: {empty}" if title else empty)
    elif all(isinstance(one, Mapping) for one in data):
        console().print(table(data, title=title))
    else:
        for one in data:
            print(f"{title}: {cell(one)}" if title else cell(one))


def _show_mapping(data: Mapping[str, Any]) -> None:
    for key, value in data.items():
        if isinstance(value, list):
            show_table(value, title=key, empty=UNKNOWN)
        else:
            print(f"{key}: {cell(value)}")


def table(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> Table:
    """Columns in the order of the rows' keys."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    made = new_table(title)
    for column in columns:
        made.add_column(str(column).upper().replace("_", " "), overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell(row.get(column))) for column in columns))
    return made


def new_table(title: str = "") -> Table:
    return Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, highlight=False)


def cell(value: Any) -> str:
    """Plain text; what is not known is a dash, never a zero."""
    if value is None or value in ("", [], {}):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={cell(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(one) for one in value)
    return str(value)
