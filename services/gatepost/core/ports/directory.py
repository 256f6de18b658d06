"""The directory: is this address deliverable, and how; and may this login send as this address.

Implemented by backends/directory_ldap (ldap3 on any LDAP server) and backends/directory_ldif (a file). One
contract suite (tests/contracts/directory) runs over both.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import msgspec

from gatepost.core.address import Address


class DirectoryUnavailable(Exception):
    """The directory did not answer in time or not at all; a temporary fault, never 'no such user'."""


class EntryKind(Enum):
    ACCOUNT = "Account"
    GROUP = "Group"


class Entry(msgspec.Struct, frozen=True):
    """What the directory knows of an address.

    `name` identifies the account (its login) or the group; `address` is its first own address; `addresses`
    are all of them as Address keys. An entry that is not `enabled` gets no mail; one that is not
    `login_enabled` may not authenticate. `mail_host` and `routing_address` are RFC-draft LASER's attributes:
    the host whose mailbox it is, and the address to re-write the recipient to. `quota_bytes` None: no limit.
    """

    name: str
    kind: EntryKind
    address: str
    addresses: tuple[str, ...]
    enabled: bool = True
    login_enabled: bool = True
    mail_host: str = ""
    routing_address: str = ""
    store: str = ""
    quota_bytes: int | None = None
    quota_used_bytes: int | None = None
    reference: str = ""  # the backend's own name of the entry (a DN)
    secure_login: bool = False  # may not log in by a mechanism that sends the password itself

    @property
    def over_quota(self) -> bool:
        return (
            self.quota_bytes is not None
            and self.quota_used_bytes is not None
            and self.quota_used_bytes >= self.quota_bytes
        )


class LoginVerdict(Enum):
    ACCEPTED = "Accepted"
    REFUSED = "Refused"  # no such login, a wrong or an empty password: never told apart to a client
    LOGIN_DISABLED = "LoginDisabled"
    ACCOUNT_DISABLED = "AccountDisabled"


class Login(msgspec.Struct, frozen=True):
    """The outcome of an authentication; `entry` only when accepted."""

    verdict: LoginVerdict
    entry: Entry | None = None


class Account(msgspec.Struct, frozen=True):
    """An account with what it takes to check a challenge (SCRAM, CRAM-MD5); only what the directory may tell us.

    `verifiers` are texts as RFC 5803 has them, `clear` passwords themselves. Never shown, logged or kept.
    """

    entry: Entry
    verifiers: tuple[str, ...] = ()
    clear: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Account({self.entry.name!r})"


class Directory(Protocol):
    """All calls have a time limit of the backend's settings and raise DirectoryUnavailable."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def lookup(self, address: Address) -> Entry | None:
        """Return the entry that has exactly this address (without regard to case), or None.

        Subaddresses are the caller's: it asks for the exact address first, then for the one without detail.
        A caller may give a question up at its first wait and ask again: the server is asked once.
        """

    async def expand(self, group: Entry) -> Sequence[Entry]:
        """Return the accounts in a group, through groups in groups: each once, in a stable order.

        Disabled members, members that do not exist, and loops are left out.
        """

    async def authenticate(self, login: str, password: str) -> Login:
        """Check a login (a name, or an own address of the account) with its password."""

    async def account(self, login: str) -> Account | None:
        """Find the account of a login, as authenticate() does, without a password; None when there is none."""
