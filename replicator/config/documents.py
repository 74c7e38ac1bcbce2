"""YAML text to plain values with the line of every key. Refuses what could be read in two ways or grow without bound."""

from __future__ import annotations

import math
from pathlib import Path as FilePath
from typing import Any, NoReturn

import yaml

from replicator.config.problems import Document, Path, Problems, path_text

FILE_BYTES_MAX = 1024 * 1024
DOCUMENT_DEPTH_MAX = 32

_TAG = "tag:yaml.org,2002:"
# A timestamp stays text: ours are judged by our own rule, and a name that looks like a date stays a name.
_TEXT_TAGS = (_TAG + "str", _TAG + "timestamp", _TAG + "value")
_SCALAR_TAGS = (_TAG + "null", _TAG + "bool", _TAG + "int", _TAG + "float")


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses aliases (a few lines of them can stand for gigabytes) and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._refuse("aliases are not allowed")
        if self.depth >= DOCUMENT_DEPTH_MAX:
            self._refuse(f"nested deeper than {DOCUMENT_DEPTH_MAX} levels")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def _refuse(self, problem: str) -> NoReturn:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def read_file(path: FilePath, problems: Problems) -> list[Document]:
    """The documents of a file, empty ones left out; what is wrong goes to ``problems``."""
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        problems.add_line(f"{path}: cannot be read: {error.strerror or error}")
        return []
    if len(content) > FILE_BYTES_MAX:
        problems.add_line(f"{path}: larger than {FILE_BYTES_MAX} bytes")
        return []
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.add_line(f"{path}:{content.count(10, 0, error.start) + 1}: not UTF-8 text")
        return []
    return parse_text(text, str(path), problems)


def parse_text(text: str, file: str, problems: Problems) -> list[Document]:
    """As ``read_file``; ``file`` is the name shown."""
    documents: list[Document] = []
    problems_before = len(problems)
    try:
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                document = Document(file, None, {})
                value = None if node is None else _Builder(document, problems).build(node, ())
                if value is not None:
                    documents.append(Document(file, value, document.lines))
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.add_line(f"{file}:{line}: a character that cannot stand in YAML")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}" if mark else file
        problems.add_line(f"{place}: {error.problem or error.context or 'not YAML'}")
    if not documents and len(problems) == problems_before:
        problems.add_line(f"{file}:1: holds no document")
    return documents


class _Builder:
    """Nodes to values; notes the line of each path in ``document.lines``."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self._document = document
        self._problems = problems
        self._constructor = yaml.constructor.SafeConstructor()

    def build(self, node: yaml.Node, path: Path) -> Any:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._problems.add(self._document, path, f"the tag {node.tag} is not allowed")
        return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _TEXT_TAGS:
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                where = f"{path_text(path)}: " if path else ""
                self._problems.add_line(f"{self._document.file}:{line}: {where}the key {shown} is not text: put it in quotes")
                continue
            key_path = (*path, key_node.value)
            if key_node.value in values:
                first = self._document.lines[key_path]
                self._problems.add_line(
                    f"{self._document.file}:{line}: {path_text(key_path)}: duplicate key, first on line {first}"
                )
                continue
            self._document.lines[key_path] = line
            values[key_node.value] = self.build(value_node, key_path)
        return values

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        if node.tag in _TEXT_TAGS:
            return node.value
        if node.tag not in _SCALAR_TAGS:
            self._problems.add(self._document, path, f"{node.value!r} with tag {node.tag} is not allowed")
            return None
        try:
            return self._constructor.construct_object(node)
        except (ValueError, KeyError, OverflowError):
            self._problems.add(self._document, path, f"not a {node.tag.removeprefix(_TAG)}")
            return None


def check_values(document: Document, problems: Problems) -> None:
    """What JSON and the store cannot hold: depth beyond the limit, NUL, lone surrogates, numbers that are not finite."""
    pending: list[tuple[Path, Any]] = [((), document.value)]
    while pending:
        path, value = pending.pop()
        if len(path) > DOCUMENT_DEPTH_MAX:
            problems.add(document, path[:3], f"nested deeper than {DOCUMENT_DEPTH_MAX} levels")
            return
        if isinstance(value, dict):
            for key, inner in value.items():
                if not _is_storable(key):
                    problems.add(document, path, "a key holds characters that cannot be stored")
                pending.append(((*path, str(key)), inner))
        elif isinstance(value, list):
            pending.extend(((*path, i), inner) for i, inner in enumerate(value))
        elif isinstance(value, str) and not _is_storable(value):
            problems.add(document, path, "holds characters that cannot be stored (NUL or half of a surrogate pair)")
        elif isinstance(value, float) and not math.isfinite(value):
            problems.add(document, path, "must be finite")


def _is_storable(text: object) -> bool:
    return isinstance(text, str) and "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
