"""XCLIENT: a trusted host passes on the session of its client (Postfix's XCLIENT_README). core/xclient.py parses.

Trust belongs to the address that the connection came from, and stays with it. What the host itself could do ends
with the command: its network, its login and its certificate give no right to those whose sessions it passes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from gatepost.core import smtp_replies as say
from gatepost.core.address import Address, AddressError, parse_address
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.ports.directory import Entry as Account
from gatepost.core.smtp_commands import CommandError
from gatepost.core.xclient import Override, parse_xclient

if TYPE_CHECKING:
    from gatepost.edge.session import Session

# A client whose address is not known: it is in no network that anybody would name.
UNKNOWN_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - nothing is bound to it

_log = structlog.get_logger("gatepost.edge")


def xclient(session: Session, argument: bytes) -> None:
    if not session.may_pass_on:
        raise CommandError(say.NOT_IMPLEMENTED)
    if session.transaction is not None:
        raise CommandError(say.XCLIENT_IN_TRANSACTION)
    override = parse_xclient(argument)
    if override.login:
        session.work(_with_login, session, override, override.login)
    else:
        _pass_on(session, override, None)


async def _with_login(session: Session, override: Override, login: str) -> None:
    try:
        account = await _account(session, login)
    except DirectoryUnavailable:
        session.refuse(say.AUTH_UNAVAILABLE)
        return
    if account is None or not account.login_enabled:
        session.refuse(say.XCLIENT_LOGIN)
        return
    _pass_on(session, override, account)


async def _account(session: Session, login: str) -> Account | None:
    """The account by its address, in the default domain where it has none. Raises DirectoryUnavailable."""
    if not session.policy.auth_enabled:
        return None
    directory = session.server.deps.directories.get(session.policy.auth_directory)
    if directory is None:
        raise DirectoryUnavailable("this process has no directory for logins")
    address = _address(login, session)
    return None if address is None else await directory.lookup(address)


def _address(login: str, session: Session) -> Address | None:
    default = session.server.tables.default
    if "@" not in login and default is not None:
        login = f"{login}@{default.domain}"
    try:
        return parse_address(login)
    except AddressError:
        return None


def _pass_on(session: Session, override: Override, account: Account | None) -> None:
    address = session.client if override.address is None else override.address or UNKNOWN_ADDRESS
    port = session.client_port if override.port is None else override.port
    if not session.refresh_policy() or not session.become(address, port):
        return
    if override.name is not None:
        session.client_name = override.name
    session.account = account
    session.helo = override.helo or ""
    session.extended = bool(session.helo and override.extended)
    _log.info("passed on", listener=session.listener.name, proxy=session.peer, client=address, id=session.id)
    session.write(session.server.greeting)
