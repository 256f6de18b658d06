"""A real Dovecot: what goes in by LMTP is read back by IMAP."""

import smtplib
from collections.abc import Iterator

import pytest

from testbed.dovecot import Dovecot

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def dovecot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dovecot]:
    with Dovecot(tmp_path_factory.mktemp("dovecot"), {"ann": "annpw", "bob": "bobpw"}) as server:
        yield server


def test_messages_are_stored_by_user_and_read_back_raw(dovecot: Dovecot) -> None:
    content = b"Subject: probe\r\n\r\n.dot\r\n\xe6\x97\xa5\r\n"
    with smtplib.LMTP("127.0.0.1", dovecot.lmtp_port) as client:
        refused = client.sendmail("s@x.test", ["ann@example.test", "nobody@example.test"], content)
    assert refused["nobody@example.test"][0] == 550
    [stored] = dovecot.await_messages("ann", 1)
    assert stored.endswith(content)
    assert stored.startswith(b"Return-Path: <s@x.test>\r\n")
    assert dovecot.messages("bob") == []


def test_it_survives_a_restart_with_its_mail(dovecot: Dovecot) -> None:
    with smtplib.LMTP("127.0.0.1", dovecot.lmtp_port) as client:
        client.sendmail("s@x.test", ["bob@example.test"], b"one\r\n")
    dovecot.server.restart()
    assert len(dovecot.await_messages("bob", 1)) == 1
