"""A real Postfix from its own configuration folder."""

import smtplib
import time
from pathlib import Path

import pytest

from testbed.postfix import DOMAIN, Postfix

pytestmark = pytest.mark.servers

SECONDS = 20.0


def test_it_delivers_into_a_maildir(tmp_path: Path) -> None:
    with Postfix(tmp_path, users=["ann"]) as postfix:
        with smtplib.SMTP("127.0.0.1", postfix.port) as client:
            refused = client.sendmail(
                "s@x.test", [f"ann@{DOMAIN}", f"nobody@{DOMAIN}"], b"Subject: one\r\n\r\nhi\r\n"
            )
        assert refused[f"nobody@{DOMAIN}"][0] == 550
        deadline = time.monotonic() + SECONDS
        while not (found := postfix.messages("ann")):
            assert time.monotonic() < deadline, postfix.server.log_tail()
            time.sleep(0.02)
        text = found[0].read_bytes()
        assert b"\nSubject: one\n" in text
        assert text.endswith(b"\n\nhi\n")


def test_it_only_accepts(tmp_path: Path) -> None:
    with Postfix(tmp_path, deliver=False) as postfix:
        with smtplib.SMTP("127.0.0.1", postfix.port) as client:
            assert client.sendmail("s@x.test", [f"user@{DOMAIN}"], b"x") == {}
        assert postfix.messages("user") == []
