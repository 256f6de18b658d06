"""Ids sort by time and are derived the same way each time; replies carry nothing that breaks a line."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.ids import derive_id, is_id, new_id, time_of
from gatepost.core.reply import Reply


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_an_id_holds_its_time(now_ms: int, entropy: bytes) -> None:
    own = new_id(now_ms, entropy)
    assert is_id(own)
    assert time_of(own) == now_ms


@given(st.integers(0, 2**48 - 2))
def test_ids_sort_by_time(now_ms: int) -> None:
    assert new_id(now_ms, b"\xff" * 10) < new_id(now_ms + 1, b"\0" * 10)


def test_no_id_comes_twice_in_any_thread() -> None:
    """The random bytes are fetched for many ids at once; all of these are of the same moment."""
    with ThreadPoolExecutor(4) as threads:
        made = [one for many in threads.map(lambda _: [new_id(1) for _ in range(2500)], range(4)) for one in many]
    assert len(set(made)) == 10_000


_FORK = """
import os
from gatepost.core.ids import new_id

new_id(1)
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, new_id(1).encode())
    os._exit(0)
os.wait()
print(os.read(read, 26).decode() != new_id(1))
"""


def test_a_forked_process_makes_other_ids() -> None:
    """Without what is done at a fork, both make the same one: they have the same bytes in hand."""
    done = subprocess.run([sys.executable, "-c", _FORK], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"


def test_derived_ids_depend_on_parent_recipient_and_action_alone() -> None:
    parent = new_id(1, bytes(10))
    one = derive_id(parent, "a@b.example", "store")
    assert one == derive_id(parent, "a@b.example", "store")
    others = {derive_id(parent, "a@b.example", "relay"), derive_id(parent, "c@b.example", "store")}
    assert len(others | {one}) == 3
    assert time_of(one) == time_of(parent)


def test_derived_ids_never_change_between_versions() -> None:
    """The inputs of the hash are bound by docs/compatibility.md."""
    assert derive_id("01HF7YAT3VMNYNQV3RQQ4BXDW8", "a@b.example", "store") == "01HF7YAT3V076FSRGYG4WENCHX"


@pytest.mark.parametrize("text", ["", "x" * 26, "01HF7YAT3VMNYNQV3RQQ4BXDW", "01HF7YAT3VMNYNQV3RQQ4BXDWI"])
def test_no_ids(text: str) -> None:
    with pytest.raises(ValueError, match="not a message id"):
        time_of(text)


def test_a_refusal_names_its_check_and_id() -> None:
    reply = Reply(550, "5.1.1", "no such user here", "recipient-unknown")
    assert reply.encode("ID1") == b"550 5.1.1 no such user here (recipient-unknown) ID1\r\n"


def test_a_positive_reply_has_no_tail() -> None:
    assert Reply(250, "2.0.0", "Ok", "x").encode("ID1") == b"250 2.0.0 Ok\r\n"


def test_several_lines() -> None:
    assert Reply(550, "5.7.1", "one\ntwo", "c").encode("I") == b"550-5.7.1 one\r\n550 5.7.1 two (c) I\r\n"


@given(st.text(max_size=700))
def test_no_text_breaks_a_reply(text: str) -> None:
    for line in Reply(550, "5.0.0", text, "c").encode("ID").split(b"\r\n")[:-1]:
        assert b"\r" not in line
        assert b"\n" not in line
        assert line[:3] == b"550"
