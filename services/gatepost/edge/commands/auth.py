"""AUTH (RFC 4954): which mechanism, and PLAIN (RFC 4616) and LOGIN; SCRAM and CRAM-MD5 are in edge/challenges.py.

Credentials live in locals only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.core import sasl
from gatepost.core import smtp_replies as say
from gatepost.core.manifest.relay_policy import Mechanism
from gatepost.core.ports.directory import DirectoryUnavailable, LoginVerdict
from gatepost.core.smtp_commands import CommandError
from gatepost.edge import challenges, login

if TYPE_CHECKING:
    from gatepost.edge.session import Session


def auth(session: Session, argument: bytes) -> None:
    mechanism_name, _, response = argument.partition(b" ")
    mechanism = _allowed(session, mechanism_name)
    initial = response.strip(b" ")
    match mechanism:
        case Mechanism.PLAIN if initial:
            _plain(session, initial)
        case Mechanism.PLAIN:
            login.ask(session, sasl.EMPTY_PROMPT, lambda line: _plain(session, line))
        case Mechanism.LOGIN if initial:
            _login_name(session, initial)
        case Mechanism.LOGIN:
            login.ask(session, sasl.USERNAME_PROMPT, lambda line: _login_name(session, line))
        case Mechanism.SCRAM_SHA_256 if initial:
            challenges.scram_begun(session, initial)
        case Mechanism.SCRAM_SHA_256:
            login.ask(session, sasl.EMPTY_PROMPT, lambda line: challenges.scram_begun(session, line))
        case Mechanism.CRAM_MD5 if initial:
            login.malformed(session)  # RFC 4954 4: the server begins, so there is no initial response
        case Mechanism.CRAM_MD5:
            challenges.cram_begun(session)


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


def _plain(session: Session, line: bytes) -> None:
    message = login.response(session, line)
    if message is None:
        return
    try:
        credentials = sasl.plain(message)
    except sasl.SaslError:
        login.malformed(session)
        return
    if credentials.authorization not in ("", credentials.login):
        login.fail(session, "Authorization", say.AUTH_REFUSED)  # nobody acts for another here
        return
    session.work(_check, session, credentials)


def _login_name(session: Session, line: bytes) -> None:
    message = login.response(session, line)
    if message is not None:
        login.ask(session, sasl.PASSWORD_PROMPT, lambda answer: _login_password(session, message, answer))


def _login_password(session: Session, name: bytes, line: bytes) -> None:
    message = login.response(session, line)
    if message is None:
        return
    try:
        credentials = sasl.Credentials(sasl.text(name), sasl.text(message))
    except sasl.SaslError:
        login.malformed(session)
        return
    session.work(_check, session, credentials)


async def _check(session: Session, credentials: sasl.Credentials) -> None:
    try:
        name = await login.name_of(session, credentials.login)
        found = await login.directory_of(session).authenticate(name, credentials.password)
    except DirectoryUnavailable:
        login.unavailable(session)
        return
    if found.verdict is not LoginVerdict.ACCEPTED or found.entry is None:
        await login.refused(session, credentials.login, name, found.verdict.value)
    elif found.entry.secure_login:
        # The same answer as to a wrong password, which a guesser would else know to be right (534 would say so).
        await login.refused(session, credentials.login, name, login.TOO_WEAK)
    else:
        login.accepted(session, name, found.entry)
