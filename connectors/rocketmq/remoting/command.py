"""One remoting command and both of its header encodings (RemotingCommand, RocketMQSerializable, RemotingSerializable).

    frame    length i32 | type u8 | header length u24 | header | body        length = everything after itself
    type 0   header is a JSON object
    type 1   code i16 | language u8 | version i16 | opaque i32 | flag i32 | remark length i32 | remark
             | map length i32 | (key length i16 | key | value length i32 | value)*

A server takes both and answers in whichever it prefers, so both are always decoded.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

from connectors.rocketmq.remoting.errors import ProtocolError

VERSION_5_1_0 = 433
DEFAULT_VERSION = VERSION_5_1_0  # at least 401 for standard JSON routes, below 476 so that no server says GO_AWAY
HEADER_BYTES_MAX = 0xFFFFFF

FLAG_RESPONSE = 1
FLAG_ONEWAY = 2

LANGUAGES = (
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST", "NODE_JS",
)
_LANGUAGE_CODES = {name: code for code, name in enumerate(LANGUAGES)}
_LANGUAGE_OTHER = 7

_TYPE_JSON = 0
_TYPE_BINARY = 1
_CODE_MIN, _CODE_MAX = -0x8000, 0x7FFF
_FIXED = struct.Struct(">hBhiii")  # code, language, version, opaque, flag, remark length
_LENGTHS = struct.Struct(">iI")  # frame length, type and header length
_INT = struct.Struct(">i")
_SHORT = struct.Struct(">h")
_OPAQUE_AT = 8 + 5  # behind the two lengths, code, language and version
_PATCHED_DIGITS = 20


@dataclass(slots=True)
class RemotingCommand:
    """A request or an answer. ``opaque`` pairs the two; ``code`` is a request code or, in an answer, a response code."""

    code: int
    ext_fields: dict[str, str] = field(default_factory=dict)
    body: bytes | memoryview = b""
    opaque: int = 0
    flag: int = 0
    language: str | int = "PYTHON"
    version: int = DEFAULT_VERSION
    remark: str | None = None

    @property
    def is_response(self) -> bool:
        return bool(self.flag & FLAG_RESPONSE)

    @property
    def is_oneway(self) -> bool:
        return bool(self.flag & FLAG_ONEWAY)


def encode_frame(command: RemotingCommand, binary: bool = True) -> bytes:
    """The whole frame, length included. A code beyond 16 bits makes the header JSON whatever ``binary`` says."""
    return b"".join((encode_head(command, binary), command.body))


def encode_head(command: RemotingCommand, binary: bool = True) -> bytes:
    """The frame up to its body, for those who write a large body without copying it."""
    try:
        if binary and _CODE_MIN <= command.code <= _CODE_MAX:
            kind, header = _TYPE_BINARY, _encode_binary(command)
        else:
            kind, header = _TYPE_JSON, _encode_json(command)
        if len(header) > HEADER_BYTES_MAX:
            raise ProtocolError(f"header of {len(header)} bytes is too long")
        return _LENGTHS.pack(4 + len(header) + len(command.body), kind << 24 | len(header)) + header
    except (struct.error, UnicodeEncodeError) as error:
        raise ProtocolError(f"command {command.code} cannot be encoded: {error}") from error


def _encode_binary(command: RemotingCommand) -> bytes:
    language = command.language
    if isinstance(language, str):
        language = _LANGUAGE_CODES.get(language, _LANGUAGE_OTHER)
    remark = (command.remark or "").encode()
    fields = _encode_fields(command.ext_fields)
    return b"".join((
        _FIXED.pack(command.code, language, command.version, command.opaque, command.flag, len(remark)),
        remark,
        _INT.pack(len(fields)),
        fields,
    ))  # fmt: skip


def _encode_fields(ext_fields: dict[str, str]) -> bytes:
    # An empty value is read as null by newer servers: "missing" to them, "null" in a signature. It is left out.
    parts: list[bytes] = []
    for name, value in ext_fields.items():
        if value:
            key = name.encode()
            text = value.encode("utf-8", "surrogateescape")
            parts += (_SHORT.pack(len(key)), key, _INT.pack(len(text)), text)
    return b"".join(parts)


def _encode_json(command: RemotingCommand) -> bytes:
    language = command.language
    if isinstance(language, int):
        language = LANGUAGES[language] if 0 <= language < len(LANGUAGES) else "OTHER"
    header: dict[str, Any] = {
        "code": command.code,
        "extFields": command.ext_fields,
        "flag": command.flag,
        "language": language,
        "opaque": command.opaque,
        "serializeTypeCurrentRPC": "JSON",
        "version": command.version,
    }
    if command.remark is not None:
        header["remark"] = command.remark
    return json.dumps(header, separators=(",", ":")).encode()


def decode_frame(frame: bytes | bytearray | memoryview) -> RemotingCommand:
    """The command in ``frame``, which is everything behind the four length bytes. The body is a view, not a copy."""
    view = frame if isinstance(frame, memoryview) else memoryview(frame)
    if len(view) < 4:
        raise ProtocolError(f"frame of {len(view)} bytes")
    kind = view[0]
    header_end = 4 + (view[1] << 16 | view[2] << 8 | view[3])
    if header_end > len(view):
        raise ProtocolError(f"header reaches to {header_end}, the frame ends at {len(view)}")
    header = bytes(view[4:header_end])
    if kind == _TYPE_BINARY:
        command = _decode_binary(header)
    elif kind == _TYPE_JSON:
        command = _decode_json(header)
    else:
        raise ProtocolError(f"unknown header type {kind}")
    command.body = view[header_end:]
    return command


def _decode_binary(header: bytes) -> RemotingCommand:
    try:
        code, language, version, opaque, flag, remark_length = _FIXED.unpack_from(header)
        position = _FIXED.size + remark_length
        (fields_length,) = _INT.unpack_from(header, position)
    except struct.error as error:
        raise ProtocolError(f"binary header is cut: {error}") from error
    if remark_length < 0 or fields_length < 0 or position + 4 + fields_length != len(header):
        raise ProtocolError("lengths in the binary header disagree")
    remark = header[_FIXED.size : position].decode("utf-8", "replace") if remark_length else None
    return RemotingCommand(
        code,
        _decode_fields(header, position + 4),
        opaque=opaque,
        flag=flag,
        language=LANGUAGES[language] if language < len(LANGUAGES) else language,
        version=version,
        remark=remark,
    )


def _decode_fields(header: bytes, position: int) -> dict[str, str]:
    fields: dict[str, str] = {}
    end = len(header)
    try:
        while position < end:
            (length,) = _SHORT.unpack_from(header, position)
            key_end = position + 2 + length
            (value_length,) = _INT.unpack_from(header, key_end)
            value_start = key_end + 4
            if length < 0 or value_length < 0:
                raise ProtocolError("negative length in the field map")
            key = header[position + 2 : key_end].decode("utf-8", "replace")
            position = value_start + value_length
            fields[key] = header[value_start:position].decode("utf-8", "surrogateescape")
    except struct.error as error:
        raise ProtocolError(f"field map is cut: {error}") from error
    if position != end:
        raise ProtocolError("field map is cut")
    return fields


def _decode_json(header: bytes) -> RemotingCommand:
    try:
        value = json.loads(header.decode())  # given bytes, it would first look for other encodings
    except (ValueError, RecursionError) as error:
        raise ProtocolError("header is not JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError("JSON header is not an object")
    remark = value.get("remark")
    language = value.get("language", "OTHER")
    if not isinstance(language, str | int) or not isinstance(remark, str | None):
        raise ProtocolError("JSON header holds a wrong type")
    return RemotingCommand(
        _integer(value, "code"),
        _json_fields(value.get("extFields")),
        opaque=_integer(value, "opaque"),
        flag=_integer(value, "flag"),
        language=language,
        version=_integer(value, "version"),
        remark=remark or None,
    )


def _integer(header: dict[str, Any], name: str) -> int:
    value = header.get(name, 0)
    if type(value) is not int or not -0x80000000 <= value <= 0x7FFFFFFF:
        raise ProtocolError(f"{name} in the JSON header is no 32-bit integer")
    return value


def _json_fields(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ProtocolError("extFields is not an object")
    if all(type(item) is str for item in value.values()):
        return value
    fields: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, str):
            fields[name] = item
        elif item is not None:
            fields[name] = json.dumps(item, separators=(",", ":"))
    return fields


class FrameTemplate:
    """A request sent many times with only its opaque and a few numbers changing: encoded once, then filled in.

    Patched fields are twenty decimal digits with leading zeros, which Java's ``Long.parseLong`` and ``Integer.parseInt``
    read as the plain number. Not for signed requests: a signature covers the values.
    """

    __slots__ = ("_format", "_names")

    def __init__(self, command: RemotingCommand, patch: tuple[str, ...]) -> None:
        if not _CODE_MIN <= command.code <= _CODE_MAX:
            raise ProtocolError(f"code {command.code} has no binary header")
        missing = set(patch) - set(command.ext_fields)
        if missing:
            raise ProtocolError(f"no such fields to patch: {sorted(missing)}")
        marks: dict[str, bytes] = {}
        fields = dict(command.ext_fields)
        for number, name in enumerate(patch):
            marks[name] = b"\x00patch%013d\x00" % number
            fields[name] = marks[name].decode()
        frame = encode_frame(
            RemotingCommand(
                command.code, fields, command.body, 0, command.flag, command.language, command.version, command.remark
            )
        )
        self._names = tuple(name for name in command.ext_fields if name in marks)
        text = frame.replace(b"%", b"%%")
        for name in self._names:
            text = text.replace(marks[name], b"%%0%dd" % _PATCHED_DIGITS, 1)
        # Percent signs in front of the opaque were doubled, so its place is counted in the doubled text.
        at = _OPAQUE_AT + frame[:_OPAQUE_AT].count(b"%")
        self._format = text[:at] + b"%b" + text[at + 4 :]

    def render(self, opaque: int, **values: int) -> bytes:
        """The frame with this opaque and these values; every patched field must be given."""
        return self._format % (_INT.pack(opaque), *[values[name] for name in self._names])
