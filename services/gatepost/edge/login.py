"""What every mechanism of AUTH shares: the lines of its dialogue, the account it is about, and what comes of it.

A failure is the same to a client whatever its reason, is counted for delays and bans, and has waited; a success
puts the account into the session. No text here has a credential in it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gatepost.core import sasl
from gatepost.core import smtp_replies as say
from gatepost.core.address import AddressError, parse_address
from gatepost.core.ports.directory import Directory, DirectoryUnavailable, Entry, LoginVerdict
from gatepost.core.reply import Reply
from gatepost.core.subaddress import split_subaddress
from gatepost.edge import alarms, bans
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.session import Session

ACCEPTED: Final = b"235 2.7.0 Authentication successful\r\n"
# RFC 4954 4: after some failures the server may close; each costs a guesser a new connection then.
MOST_FAILURES: Final = 3
TOO_WEAK: Final = "MechanismTooWeak"


def ask(session: Session, prompt: bytes, then: Callable[[bytes], None]) -> None:
    """Send a whole line, and have the next one taken for its answer."""
    session.write(prompt)
    session.dialogue = then


def challenge(session: Session, message: bytes, then: Callable[[bytes], None]) -> None:
    """Send a mechanism's message (RFC 4954 4)."""
    ask(session, b"334 " + base64.b64encode(message) + b"\r\n", then)


def response(session: Session, line: bytes) -> bytes | None:
    """The decoded response; None when the client gave up or sent nonsense, which is answered here."""
    if line == b"*":
        session.refuse(say.AUTH_CANCELLED)  # RFC 4954 4
        return None
    try:
        return sasl.decode(line)
    except sasl.SaslError:
        malformed(session)
        return None


def malformed(session: Session) -> None:
    """The response is none of the mechanism's."""
    fail(session, "Malformed", say.AUTH_SYNTAX)


def directory_of(session: Session) -> Directory:
    """The directory that checks this session's logins. Raises DirectoryUnavailable."""
    directory = session.server.deps.directories.get(session.policy.auth_directory)
    if directory is None:
        raise DirectoryUnavailable("this process has no directory for logins")
    return directory


async def name_of(session: Session, login: str) -> str:
    """The account's name for a login; one that is being guessed has waited. Raises DirectoryUnavailable."""
    name = await _without_detail(session, directory_of(session), login)
    await _wait(bans.login_delay(session, name))
    return name


def unavailable(session: Session) -> None:
    metrics.AUTH.add(session.listener.name, "Unavailable")
    session.refuse(say.AUTH_UNAVAILABLE)


def may_log_in(entry: Entry) -> LoginVerdict:
    """Whether an account may, once its secret was right."""
    if not entry.enabled:
        return LoginVerdict.ACCOUNT_DISABLED
    return LoginVerdict.ACCEPTED if entry.login_enabled else LoginVerdict.LOGIN_DISABLED


async def refused(session: Session, login: str, name: str, verdict: str) -> None:
    """A login failed: `login` as it was given, `name` the account that was tried."""
    alarms.failed_login(session.server.deps, session, login)
    bans.login_tried(session, name, failed=True)
    await _wait(0.0 if session.policy.auth_failures is None else session.policy.auth_failures.delay)
    # One answer for all: a guesser must not learn which names exist.
    fail(session, verdict, say.AUTH_REFUSED)


def accepted(session: Session, name: str, entry: Entry) -> None:
    """A login succeeded."""
    metrics.AUTH.add(session.listener.name, LoginVerdict.ACCEPTED.value)
    bans.login_tried(session, name, failed=False)
    session.account = entry
    session.slow = 0.0  # what it did before is not what our users do
    session.write(ACCEPTED)


def fail(session: Session, verdict: str, reply: Reply) -> None:
    metrics.AUTH.add(session.listener.name, verdict)
    session.auth_failures += 1
    session.refuse(reply)
    if session.auth_failures >= MOST_FAILURES:
        session.goodbye(say.AUTH_FAILURES)


async def _wait(seconds: float) -> None:
    """Make a guesser wait; a cancelled one costs nothing."""
    if seconds:
        await asyncio.sleep(seconds)


async def _without_detail(session: Session, directory: Directory, login: str) -> str:
    """The account that `user+detail` means (RFC 5233), unless that is the name of an entry of its own."""
    local, at, domain = login.rpartition("@")
    tables = session.server.tables
    name = domain if at else "" if tables.default is None else tables.default.domain
    config = tables.domain(name.lower())
    split = None if config is None else split_subaddress(local if at else domain, config.separators)
    if split is None:
        return login
    try:
        if await directory.lookup(parse_address(login if at else f"{login}@{name}")) is not None:
            return login
    except AddressError:
        return login
    return f"{split[0]}{at}{domain}" if at else split[0]
