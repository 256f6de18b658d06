"""The DATA reader against a simple one that sees everything at once, in every segmentation."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatepost.core.checks import content
from gatepost.core.data_reader import DataReader, Fault

SIZE, HEADER = 60, 25

# Streams made of what matters, so that ends, stuffing and bare line ends meet often.
PARTS = [b"\r\n", b".", b"\r", b"\n", b"\0", b"a", b"bcd", b"\xff", b"\r\n.", b"\r\n\r\n", b"\n.\n", b"Received: x"]
streams = st.lists(st.sampled_from(PARTS), max_size=30).map(b"".join)
cuts = st.lists(st.integers(min_value=1, max_value=12), max_size=40)


def reference(stream: bytes, *, normalize: bool) -> tuple[Fault | None, bytes, bytes] | None:
    """(fault, content, rest) as the RFC says it, or None: the end is not there."""
    whole = b"\r\n" + stream
    end = whole.find(b"\r\n.\r\n")
    if end < 0:
        return None
    text, rest = whole[: end + 2], whole[end + 5 :]
    bare = re.search(rb"\r(?!\n)|(?<!\r)\n", text) is not None
    if bare and normalize:
        text = re.sub(rb"\r\n|\r|\n", b"\r\n", text)
    lines = text.split(b"\r\n")[1:-1]
    body = b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)
    empty = 0 if body.startswith(b"\r\n") else body.find(b"\r\n\r\n")
    header = body if empty < 0 else body[: empty + 2 if empty else 0]
    if bare and not normalize:
        return Fault.BARE_NEWLINE, b"", rest
    if b"\0" in text:
        return Fault.NUL, b"", rest
    if len(header) > HEADER:
        return Fault.HEADER_SIZE, b"", rest
    if len(body) > SIZE:
        return Fault.SIZE, b"", rest
    return None, body, rest


def feed(stream: bytes, sizes: list[int], *, normalize: bool) -> tuple[DataReader, bytes]:
    reader = DataReader(SIZE, HEADER, normalize=normalize)
    body = b""
    sizes = list(sizes)
    place = 0
    while place < len(stream) and not reader.finished:
        size = sizes.pop(0) if sizes else len(stream)
        body += reader.feed(stream[place : place + size])
        place += size
    if reader.finished:
        reader.rest += stream[place:]
    return reader, body


@given(streams, cuts, st.booleans())
@example(b".\r\n", [1, 1, 1], False)
@example(b"..\r\n.\r\n", [1] * 7, False)
@example(b"a\n.\r\n.\r\n", [1] * 9, True)
@example(b"a\r.\r\n.\r\n", [2, 1] * 9, True)
@example(b"a\r\n.\rb\r\n.\r\n", [5, 1] * 9, False)
def test_any_segmentation_gives_what_the_reference_gives(stream: bytes, sizes: list[int], normalize: bool) -> None:
    reader, body = feed(stream, sizes, normalize=normalize)
    expected = reference(stream, normalize=normalize)
    assert reader.finished is (expected is not None)
    if expected is None:
        return
    fault, whole, rest = expected
    assert reader.fault is fault
    assert reader.rest == rest
    if fault is None:
        assert body == whole
        assert reader.size == len(whole)
        assert reader.eight_bit is not whole.isascii()


@given(streams, cuts)
def test_the_header_is_found_in_any_segmentation(stream: bytes, sizes: list[int]) -> None:
    stream += b"\r\n.\r\n"
    reader, body = feed(stream, sizes, normalize=True)
    if reader.fault is None:
        empty = body.find(b"\r\n\r\n")
        header = b"" if body.startswith(b"\r\n") else body if empty < 0 else body[: empty + 2]
        assert bytes(reader.header) == header


@given(st.binary(max_size=200), cuts)
def test_stuffed_content_comes_back(data: bytes, sizes: list[int]) -> None:
    """What a correct client sends arrives byte for byte."""
    wanted = data.replace(b"\0", b"0").replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n"
    stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in wanted.split(b"\r\n"))
    reader = DataReader(10_000, 10_000)
    stream = stuffed + b".\r\nQUIT\r\n"
    body = b""
    while stream and not reader.finished:
        size = sizes.pop(0) if sizes else len(stream)
        body += reader.feed(stream[:size])
        stream = stream[size:]
    assert reader.finished
    assert reader.fault is None
    assert body == wanted
    assert reader.rest + stream == b"QUIT\r\n"


@given(streams)
def test_nothing_is_content_that_could_end_content_again(stream: bytes) -> None:
    """Stuffed anew for the next hop, a normalized body has exactly one end: smuggling needs a second one."""
    reader, body = feed(stream + b"\r\n.\r\n", [], normalize=True)
    if reader.fault is not None:
        return
    again = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in body.split(b"\r\n"))
    onward = b"\r\n" + again + b".\r\n"
    assert onward.find(b"\r\n.\r\n") == len(onward) - 5
    assert onward.count(b"\n") == onward.count(b"\r") == onward.count(b"\r\n")


@pytest.mark.parametrize(
    ("header", "limit", "code"),
    [
        (b"", 0, None),
        (b"Received: a\r\n", 0, 554),
        (b"Received: a\r\nreceived: b\r\n", 2, None),
        (b"Received: a\r\nRECEIVED:b\r\n", 1, 554),
        (b"Subject: Received: x\r\n Received: y\r\n", 0, None),
        (b"X-Received: a\r\n", 0, None),
    ],
)
def test_loops(header: bytes, limit: int, code: int | None) -> None:
    reader = DataReader(1000, 1000)
    reader.feed(header + b"\r\nReceived: in the body\r\n.\r\n")
    reply = content.evaluate(reader, limit)
    assert (reply and reply.code) == code
