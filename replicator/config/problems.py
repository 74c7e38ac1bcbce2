"""What is wrong with which line, collected so that a person sees everything in one go."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from replicator.core.errors import InvalidInput

PROBLEMS_SHOWN_MAX = 100

Path = tuple[str | int, ...]
Finding = tuple[Path, str]


def path_text(path: Path) -> str:
    """``spec.tags[0].key``; keys that are no plain words are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w*-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text


def nearest_text(name: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)``, or nothing where no known name is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


@dataclass(frozen=True)
class Document:
    """One document. ``lines`` maps paths to line numbers from 1, empty for documents that are no text."""

    file: str
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def place(self, path: Path = ()) -> str:
        """``FILE:LINE`` of the path or, where it is not in the document, of what encloses it."""
        for end in range(len(path), -1, -1):
            line = self.lines.get(path[:end])
            if line is not None:
                return f"{self.file}:{line}"
        return self.file


@dataclass
class Problems:
    _found: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, document: Document, path: Path, what: str) -> None:
        where = path_text(path)
        self.add_line(f"{document.place(path)}: {where}: {what}" if where else f"{document.place()}: {what}")

    def add_all(self, document: Document, findings: Iterable[Finding], prefix: Path = ()) -> None:
        for path, what in findings:
            self.add(document, prefix + path, what)

    def add_line(self, text: str) -> None:
        self._found.append(text)

    def raise_if_any(self) -> None:
        if not self._found:
            return
        shown = self._found[:PROBLEMS_SHOWN_MAX]
        if len(self._found) > len(shown):
            shown.append(f"and {len(self._found) - len(shown)} more")
        raise InvalidInput("\n".join(shown))


def findings_of(error: ValidationError, model: type[BaseModel]) -> list[Finding]:
    """Pydantic's errors in our words. Never shows the values given: one of them may be a secret in the wrong place."""
    findings: list[Finding] = []
    for each in error.errors(include_input=True, include_url=False):
        path: Path = each["loc"]
        kind = each["type"]
        if kind == "missing":
            what = "required"
        elif kind == "extra_forbidden":
            what = "unknown key" + nearest_text(str(path[-1]), _keys_at(model, path[:-1]))
        elif kind == "literal_error":
            expected = each.get("ctx", {}).get("expected", "")
            given = each["input"] if isinstance(each["input"], str) else ""
            what = f"expected {expected}" + nearest_text(given, re.findall(r"'([^']*)'", expected))
        else:
            what = each["msg"].removeprefix("Value error, ")
        findings.append((path, what))
    return findings


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """The keys the model knows at ``path``; none where the path leads to something else than a model."""
    current: Any = model
    for part in path:
        current = _model_within(current)
        origin = get_origin(current)
        if origin in (list, tuple):
            current = get_args(current)[0]
        elif origin is dict:
            current = get_args(current)[1]
        elif isinstance(current, type) and issubclass(current, BaseModel):
            fields = {info.alias or name: info for name, info in current.model_fields.items()}
            if part not in fields:
                return []
            current = fields[str(part)].annotation
        else:
            return []
    current = _model_within(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [info.alias or name for name, info in current.model_fields.items()]
    return []


def _model_within(annotation: Any) -> Any:
    """The annotation without ``Annotated`` and ``| None``."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            annotation = next(each for each in get_args(annotation) if each is not type(None))
        else:
            return annotation
