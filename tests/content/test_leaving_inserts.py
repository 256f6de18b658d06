"""What leaves has texts in the place of spans, however it is read."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.core.leaving import Insert, Span, leaving, leaving_bytes, merged
from gatepost.core.memory_body import MemoryBody

MESSAGE = bytes(range(65, 125))
PLACES = st.integers(0, len(MESSAGE))


def expected(strip: tuple[Span, ...], insert: list[Insert]) -> bytes:
    """Octet by octet."""
    gone = {place for offset, octets in strip for place in range(offset, offset + octets)}
    out = b""
    for place in range(len(MESSAGE) + 1):
        out += b"".join(text.encode() for offset, text in insert if offset == place)
        if place < len(MESSAGE) and place not in gone:
            out += MESSAGE[place : place + 1]
    return out


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(PLACES, st.integers(1, 9)), max_size=5),
    st.lists(
        st.tuples(PLACES, st.sampled_from(["<note>", "é", "a long text that is longer than pieces"])), max_size=4
    ),
    st.integers(1, 70),
)
async def test_texts_stand_in_the_place_of_spans(spans: list[Span], insert: list[Insert], size: int) -> None:
    strip = merged(
        (offset, min(octets, len(MESSAGE) - offset)) for offset, octets in spans if offset < len(MESSAGE)
    )
    insert.sort(key=lambda one: one[0])
    left = expected(strip, insert)
    assert leaving_bytes(MESSAGE, strip, insert) == left
    body = leaving(MemoryBody(MESSAGE), strip, insert)
    pieces = [piece async for piece in body.pieces(size)]
    assert b"".join(pieces) == left == body.whole()
    assert all(0 < len(piece) <= size for piece in pieces)
    assert body.size == len(left)
