"""The two stores, each with a way to read back what is in a mailbox."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gatepost.backends.store_lmtp import LmtpStore
from gatepost.backends.store_maildir import MaildirStore
from gatepost.core.manifest.settings import LmtpSettings, MaildirSettings
from gatepost.core.ports.store import Store
from testbed.dovecot import Dovecot

USERS = tuple(f"user{number}" for number in range(20))


@dataclasses.dataclass(frozen=True)
class StoreCase:
    """`read` gives all messages that have come into a mailbox since the test began."""

    store: Store
    read: Callable[[str], list[bytes]]


@pytest.fixture(scope="session")
def dovecot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dovecot]:
    with Dovecot(tmp_path_factory.mktemp("dovecot"), dict.fromkeys(USERS, "secret")) as server:
        yield server


@pytest.fixture(params=["maildir", pytest.param("lmtp", marks=pytest.mark.servers)])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreCase]:
    store: Store
    if request.param == "maildir":
        store = MaildirStore(MaildirSettings(path="mail"), tmp_path, "mx.example.test")

        def read(mailbox: str) -> list[bytes]:
            return [path.read_bytes() for path in sorted((tmp_path / "mail" / mailbox / "new").glob("*"))]
    else:
        server: Dovecot = request.getfixturevalue("dovecot")
        old = {user: len(server.messages(user)) for user in USERS[:4]}
        store = LmtpStore(LmtpSettings(address=f"127.0.0.1:{server.lmtp_port}"), "mx.example.test")

        def read(mailbox: str) -> list[bytes]:
            return server.messages(mailbox)[old.get(mailbox, 0) :]

    await store.start()
    yield StoreCase(store, read)
    await store.close()
