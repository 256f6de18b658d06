"""HOST:PORT as users write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.endpoints import EndpointError, parse_endpoint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:25", ("127.0.0.1", 25)),
        ("[::1]:2525", ("::1", 2525)),
        ("mx.example.test:0", ("mx.example.test", 0)),
        ("h:65535", ("h", 65535)),
    ],
)
def test_what_is_one(text: str, expected: tuple[str, int]) -> None:
    assert parse_endpoint(text) == expected


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:", ":24", "h:x", "h:\u00b2", "h:-1", "h:2.5", "h:65536"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(EndpointError, match="is not HOST:PORT"):
        parse_endpoint(text)


def test_a_server_s_port_is_not_any() -> None:
    with pytest.raises(EndpointError):
        parse_endpoint("h:0", lowest=1)


@given(st.text())
def test_any_text_is_one_or_is_refused(text: str) -> None:
    try:
        _, port = parse_endpoint(text)
    except EndpointError:
        return
    assert 0 <= port <= 65535
