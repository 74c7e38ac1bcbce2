from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.rocketmq.remoting.command import (
    DEFAULT_VERSION,
    FrameTemplate,
    RemotingCommand,
    decode_frame,
    encode_frame,
    encode_head,
)
from connectors.rocketmq.remoting.errors import ProtocolError
from tests.protocol.cases import COMMANDS, frame

INT32 = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
FIELDS = st.dictionaries(TEXT, TEXT.filter(bool), max_size=6)
LANGUAGES = st.sampled_from(["JAVA", "PYTHON", "GO", "OTHER"])
COMMAND = st.builds(
    RemotingCommand,
    code=st.integers(-0x8000, 0x7FFF),
    ext_fields=FIELDS,
    body=st.binary(max_size=50),
    opaque=INT32,
    flag=st.integers(0, 3),
    language=LANGUAGES,
    version=st.integers(0, 500),
    remark=st.none() | TEXT.filter(bool),
)


@pytest.mark.parametrize(("data", "command", "binary"), COMMANDS.values(), ids=COMMANDS)
def test_written_as_the_layout_says(data: bytes, command: RemotingCommand, binary: bool) -> None:
    assert decode_frame(data[4:]) == command
    if binary:
        assert encode_frame(command, binary) == data
    else:
        assert decode_frame(encode_frame(command, binary)[4:]) == command


@pytest.mark.parametrize(("data", "command", "binary"), COMMANDS.values(), ids=COMMANDS)
def test_a_header_cut_anywhere_is_a_protocol_error(data: bytes, command: RemotingCommand, binary: bool) -> None:
    header = data[8 : len(data) - len(command.body)]
    for length in range(len(header)):
        with pytest.raises(ProtocolError):
            decode_frame(frame(int(binary), header[:length])[4:])
        with pytest.raises(ProtocolError):
            decode_frame(data[4 : 8 + length])


@given(COMMAND, st.booleans())
def test_round_trip(command: RemotingCommand, binary: bool) -> None:
    data = encode_frame(command, binary)
    assert struct.unpack_from(">i", data)[0] == len(data) - 4
    assert decode_frame(data[4:]) == command
    assert encode_head(command, binary) + bytes(command.body) == data


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"\x01\x00\x00\x20" + tail))
def test_garbage_raises_only_a_protocol_error(data: bytes) -> None:
    try:
        decode_frame(data)
    except ProtocolError:
        return


@given(COMMAND, st.booleans(), st.data())
def test_a_changed_byte_raises_only_a_protocol_error(command: RemotingCommand, binary: bool, data: st.DataObject) -> None:
    changed = bytearray(encode_frame(command, binary)[4:])
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_frame(changed)
    except ProtocolError:
        return


@pytest.mark.parametrize(
    "header",
    [
        b"[]", b"1", b'"x"', b"{", b'{"code":"0"}', b'{"code":1.5}', b'{"code":true}', b'{"opaque":4294967296}',
        b'{"extFields":[]}', b'{"remark":3}', b'{"language":null}', b"[" * 100_000, b'{"code":' + b"9" * 5000 + b"}",
        b"\xff\xfe\xfd",
    ],
    ids=range(14),
)  # fmt: skip
def test_json_headers_that_are_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_frame(frame(0, header)[4:])


def test_json_headers_are_read_with_patience() -> None:
    command = decode_frame(frame(0, b'{"code":1,"extFields":{"a":"x","n":5,"t":true,"z":null},"unknown":{}}')[4:])
    assert command.ext_fields == {"a": "x", "n": "5", "t": "true"}
    assert decode_frame(frame(0, b'{"extFields":null}')[4:]).ext_fields == {}


def test_an_unknown_header_type_is_refused() -> None:
    with pytest.raises(ProtocolError):
        decode_frame(frame(2, b"{}")[4:])


def test_empty_values_are_not_written_in_binary() -> None:
    data = encode_frame(RemotingCommand(11, {"a": "", "b": "1"}))
    assert decode_frame(data[4:]).ext_fields == {"b": "1"}


def test_a_code_beyond_16_bits_becomes_json() -> None:
    data = encode_frame(RemotingCommand(200050, {"a": "1"}))
    assert data[4] == 0
    assert decode_frame(data[4:]).code == 200050


def test_languages_by_number_and_by_unknown_name() -> None:
    for binary in (True, False):
        assert decode_frame(encode_frame(RemotingCommand(1, language=9), binary)[4:]).language == "GO"
        assert decode_frame(encode_frame(RemotingCommand(1, language=7), binary)[4:]).language == "OTHER"
    assert decode_frame(encode_frame(RemotingCommand(1, language="COBOL"))[4:]).language == "OTHER"
    assert decode_frame(encode_frame(RemotingCommand(1, language=99))[4:]).language == 99
    assert decode_frame(encode_frame(RemotingCommand(1, language=99), binary=False)[4:]).language == "OTHER"


def test_values_that_are_no_utf8_survive() -> None:
    value = b"k\x01\xb0\xa1\x02".decode("utf-8", "surrogateescape")
    received = decode_frame(encode_frame(RemotingCommand(310, {"i": value}))[4:]).ext_fields["i"]
    assert received.encode("utf-8", "surrogateescape") == b"k\x01\xb0\xa1\x02"


@pytest.mark.parametrize(
    "command",
    [
        RemotingCommand(1, opaque=2**31),
        RemotingCommand(1, version=40_000),
        RemotingCommand(1, remark="\ud800"),
        RemotingCommand(1, {"x" * 40_000: "1"}),
        RemotingCommand(1, {"x": "y" * 0x1000000}),
    ],
    ids=["opaque", "version", "remark", "name", "header"],
)
def test_what_cannot_be_encoded_is_a_protocol_error(command: RemotingCommand) -> None:
    with pytest.raises(ProtocolError):
        encode_frame(command)


def test_flags() -> None:
    assert RemotingCommand(0, flag=1).is_response
    assert not RemotingCommand(0, flag=1).is_oneway
    assert RemotingCommand(0, flag=2).is_oneway
    assert not RemotingCommand(0, flag=2).is_response
    assert 401 <= DEFAULT_VERSION <= 475


@given(INT32, st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**31 - 1))
def test_a_template_renders_the_same_command(opaque: int, offset: int, count: int) -> None:
    fields = {"topic": "%RETRY%g%d", "queueOffset": "0", "sub": "100%", "maxMsgNums": "1", "z": "%b"}
    template = FrameTemplate(RemotingCommand(0x2525, fields, b"50%"), ("maxMsgNums", "queueOffset"))
    data = template.render(opaque, queueOffset=offset, maxMsgNums=count)
    command = decode_frame(data[4:])
    assert struct.unpack_from(">i", data)[0] == len(data) - 4
    assert (command.code, command.opaque, bytes(command.body)) == (0x2525, opaque, b"50%")
    assert (int(command.ext_fields["queueOffset"]), int(command.ext_fields["maxMsgNums"])) == (offset, count)
    assert len(command.ext_fields["queueOffset"]) == 20
    assert {name: command.ext_fields[name] for name in ("topic", "sub", "z")} == {name: fields[name] for name in ("topic", "sub", "z")}


def test_a_template_needs_known_fields_and_a_16_bit_code() -> None:
    with pytest.raises(ProtocolError):
        FrameTemplate(RemotingCommand(11, {"a": "1"}), ("b",))
    with pytest.raises(ProtocolError):
        FrameTemplate(RemotingCommand(200050, {"a": "1"}), ("a",))
    with pytest.raises(KeyError):
        FrameTemplate(RemotingCommand(11, {"a": "1"}), ("a",)).render(1)
