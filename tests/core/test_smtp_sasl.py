"""Decoding of AUTH responses."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core import sasl

NAMES = st.text(st.characters(min_codepoint=1, codec="utf-8"), min_size=1, max_size=50)


@given(NAMES, NAMES, st.one_of(st.just(""), NAMES))
def test_plain_comes_back(login: str, password: str, authorization: str) -> None:
    message = f"{authorization}\0{login}\0{password}".encode()
    found = sasl.plain(sasl.decode(base64.b64encode(message)))
    assert found == sasl.Credentials(login, password, authorization)


@given(st.binary(max_size=100))
def test_anything_else_is_a_sasl_error(data: bytes) -> None:
    try:
        found = sasl.plain(sasl.decode(data))
    except sasl.SaslError as error:
        told = error.args
    else:
        told = ()
        assert found.login
        assert found.password
    assert not told


@pytest.mark.parametrize(
    "message", [b"", b"\0\0", b"\0a\0", b"\0\0b", b"a\0b", b"\0a\0b\0c", b"\0\xff\0b", b"\0a\0" + b"x" * 1025]
)
def test_refused(message: bytes) -> None:
    with pytest.raises(sasl.SaslError):
        sasl.plain(message)


def test_credentials_never_show_the_password() -> None:
    assert "hunter2" not in repr(sasl.Credentials("alice", "hunter2"))
