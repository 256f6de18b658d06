"""MAIL: begins a transaction under the configuration of this moment (RFC 5321 3.3, 4.1.1.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.trace import SpanKind

from gatepost.core import smtp_replies as say
from gatepost.core.checks import sender_match
from gatepost.core.manifest.relay_policy import RequireFor
from gatepost.core.smtp_commands import CommandError, parse_mail
from gatepost.edge import authentication, routed_addresses, traps
from gatepost.edge.transaction import SPAN, Transaction

if TYPE_CHECKING:
    from gatepost.edge.session import Session

OK: Final = b"250 2.1.0 Ok\r\n"


def mail(session: Session, argument: bytes) -> None:
    if not session.helo and session.policy.helo.require:
        raise CommandError(say.HELO_FIRST)
    if session.transaction is not None:
        raise CommandError(say.NESTED_MAIL)
    if not session.refresh_policy():
        return
    server, table = session.server, session.table
    policy = table.policy
    if session.needs_tls:
        raise CommandError(say.TLS_REQUIRED)
    if policy.auth_require_for is RequireFor.ALL and session.account is None:
        raise CommandError(say.AUTH_REQUIRED)
    command = parse_mail(argument, extended=session.extended)
    if command.size > policy.message_size:
        raise CommandError(say.TOO_LARGE)  # RFC 1870 6.1
    if session.account is not None:
        refusal = sender_match.evaluate(command.address, session.account, policy.auth_sender_match, server.tables)
        if refusal is not None:
            raise CommandError(say.quoting(refusal, str(command.address)))
    if session.verdicts is not None:
        session.verdicts.sender(command.address)
    tracer = server.deps.tracer
    span = tracer.start(SPAN, kind=SpanKind.PRODUCER, sampled=True) if tracer.sampled() else None
    session.transaction = transaction = Transaction(command, server.tables, table, span)
    if server.bans and (banned := traps.sender_banned(session, command.address)) is not None:
        transaction.verdicts.append(banned)
    if policy.routed_addresses is not None:
        routed_addresses.judge_sender(session, transaction)
    if table.authentication is not None:
        transaction.authentication = authentication.begin(session, transaction, table.authentication)
    if span is not None:
        span.set("client.address", session.client)
        span.set("gatepost.listener", session.listener.name)
        span.event("mail", sender=str(command.address or ""), size=command.size)
    session.write(OK)
