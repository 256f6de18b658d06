"""AUTH PLAIN and LOGIN (RFC 4954, RFC 4616), asked of the policy's directory. Credentials live in locals only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gatepost.core import sasl
from gatepost.core import smtp_replies as say
from gatepost.core.address import AddressError, parse_address, split_subaddress
from gatepost.core.manifest.relay_policy import Mechanism
from gatepost.core.ports.directory import Directory, DirectoryUnavailable, LoginVerdict
from gatepost.core.reply import Reply
from gatepost.core.smtp_commands import CommandError
from gatepost.edge import alarms, bans
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.session import Session

ACCEPTED: Final = b"235 2.7.0 Authentication successful\r\n"
# RFC 4954 4: after some failures the server may close; each costs a guesser a new connection then.
MOST_FAILURES: Final = 3


def auth(session: Session, argument: bytes) -> None:
    mechanism_name, _, response = argument.partition(b" ")
    mechanism = _allowed(session, mechanism_name)
    initial = response.strip(b" ")
    if mechanism is Mechanism.PLAIN:
        if initial:
            _plain(session, initial)
        else:
            _ask(session, sasl.EMPTY_PROMPT, lambda line: _plain(session, line))
    elif initial:
        _login_name(session, initial)
    else:
        _ask(session, sasl.USERNAME_PROMPT, lambda line: _login_name(session, line))


def _allowed(session: Session, name: bytes) -> Mechanism:
    """The mechanism, when AUTH is possible now. Raises CommandError."""
    policy = session.policy
    if not policy.auth_enabled:
        raise CommandError(say.AUTH_NOT_AVAILABLE)
    if not session.extended:
        raise CommandError(say.AUTH_NEEDS_EHLO)
    if session.account is not None:
        raise CommandError(say.AUTH_ALREADY)  # RFC 4954 4
    if session.transaction is not None:
        raise CommandError(say.AUTH_IN_TRANSACTION)
    if session.needs_tls:
        raise CommandError(say.TLS_REQUIRED)
    if policy.auth_require_tls and not session.tls:
        raise CommandError(say.AUTH_NEEDS_TLS)
    for mechanism in policy.auth_mechanisms:
        if name.upper() == mechanism.value.encode():
            return mechanism
    raise CommandError(say.AUTH_MECHANISM)


def _ask(session: Session, prompt: bytes, then: Callable[[bytes], None]) -> None:
    session.write(prompt)
    session.dialogue = then


def _plain(session: Session, line: bytes) -> None:
    message = _response(session, line)
    if message is None:
        return
    try:
        credentials = sasl.plain(message)
    except sasl.SaslError:
        _fail(session, "Malformed", say.AUTH_SYNTAX)
        return
    if credentials.authorization not in ("", credentials.login):
        _fail(session, "Authorization", say.AUTH_REFUSED)  # nobody acts for another here
        return
    session.work(_check, session, credentials)


def _login_name(session: Session, line: bytes) -> None:
    message = _response(session, line)
    if message is not None:
        _ask(session, sasl.PASSWORD_PROMPT, lambda answer: _login_password(session, message, answer))


def _login_password(session: Session, name: bytes, line: bytes) -> None:
    message = _response(session, line)
    if message is None:
        return
    try:
        credentials = sasl.Credentials(sasl.text(name), sasl.text(message))
    except sasl.SaslError:
        _fail(session, "Malformed", say.AUTH_SYNTAX)
        return
    session.work(_check, session, credentials)


def _response(session: Session, line: bytes) -> bytes | None:
    """The decoded response; None when the client gave up or sent nonsense, which is answered here."""
    if line == b"*":
        session.refuse(say.AUTH_CANCELLED)  # RFC 4954 4
        return None
    try:
        return sasl.decode(line)
    except sasl.SaslError:
        _fail(session, "Malformed", say.AUTH_SYNTAX)
        return None


async def _check(session: Session, credentials: sasl.Credentials) -> None:
    directory = session.server.deps.directories.get(session.policy.auth_directory)
    listener = session.listener.name
    try:
        if directory is None:
            raise DirectoryUnavailable("this process has no directory for logins")
        name = await _without_detail(session, directory, credentials.login)
        await _wait(bans.login_delay(session, name))
        login = await directory.authenticate(name, credentials.password)
    except DirectoryUnavailable:
        metrics.AUTH.add(listener, "Unavailable")
        session.refuse(say.AUTH_UNAVAILABLE)
        return
    if login.verdict is not LoginVerdict.ACCEPTED or login.entry is None:
        alarms.failed_login(session.server.deps, session, credentials.login)
        bans.login_tried(session, name, failed=True)
        await _wait(0.0 if session.policy.auth_failures is None else session.policy.auth_failures.delay)
        # One answer for all: a guesser must not learn which names exist.
        _fail(session, login.verdict.value, say.AUTH_REFUSED)
        return
    metrics.AUTH.add(listener, login.verdict.value)
    bans.login_tried(session, name, failed=False)
    session.account = login.entry
    session.slow = 0.0  # what it did before is not what our users do
    session.write(ACCEPTED)


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


def _fail(session: Session, verdict: str, reply: Reply) -> None:
    metrics.AUTH.add(session.listener.name, verdict)
    session.auth_failures += 1
    session.refuse(reply)
    if session.auth_failures >= MOST_FAILURES:
        session.goodbye(say.AUTH_FAILURES)
