"""What leaves is the message as received less the spans of the envelope, however it is read."""

from __future__ import annotations

import hashlib
import itertools

from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.authentication.results_field import forged_spans, without_forged
from gatepost.core.leaving import leaving, leaving_bytes
from gatepost.core.memory_body import MemoryBody

OURS = {"mx.example.test"}
LINES = st.sampled_from(
    [
        b"Authentication-Results: mx.example.test; dmarc=pass",
        b"authentication-RESULTS:\tMX.example.test.;",
        b"Authentication-Results:",
        b"Authentication-Results: mx.example.net; spf=pass",
        b" folded",
        b"\tmx.example.test; none",
        b"From: a@b.example",
        b"no field",
        b"",
    ]
)


@given(st.lists(LINES, max_size=12), st.binary(max_size=20), st.integers(1, 50))
async def test_what_leaves_has_no_field_in_our_name(lines: list[bytes], rest: bytes, size: int) -> None:
    header = b"".join(line + b"\r\n" for line in lines)
    spans = forged_spans(header, OURS)
    message = header + rest
    left = leaving_bytes(message, spans)
    assert left == without_forged(header, OURS) + rest
    body = leaving(MemoryBody(message), spans)
    pieces = [piece async for piece in body.pieces(size)]
    assert b"".join(pieces) == left == body.whole()
    assert all(0 < len(piece) <= size for piece in pieces)
    assert (body.size, body.sha256) == (len(left), hashlib.sha256(left).hexdigest())
    assert all(sum(one) < other[0] for one, other in itertools.pairwise(spans)), "neighbours are one span"


def test_without_spans_the_body_is_the_body() -> None:
    body = MemoryBody(b"x")
    assert leaving(body, ()) is body
