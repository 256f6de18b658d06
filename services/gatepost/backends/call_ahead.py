"""core.ports.call_ahead.CallAhead over SMTP: MAIL FROM:<>, RCPT, and away again; answers are kept for a while."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from gatepost.backends.directory_cache import DirectoryCache
from gatepost.backends.smtp_client.connection import Connection, TlsFailed, open_connection
from gatepost.backends.smtp_client.limits import Dialect, Limits
from gatepost.backends.smtp_client.tls import opportunistic_context
from gatepost.core.address import Address
from gatepost.core.call_ahead import Answer, CallAheadPlan, meaning
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.ports.transport import HostFailure, HostPort
from gatepost.telemetry import metrics

# At once for one set of hosts: a dictionary attack on us must not become one on the next host.
CONCURRENT: Final = 4
# Sets of hosts that are remembered; beyond that the one not asked for longest is forgotten.
MOST_PLANS: Final = 256
# Domains that are remembered as probed, of one set of hosts: with subdomains of any name there can be very many.
MOST_DOMAINS: Final = 1000
# How long a host is believed to take every address before it is probed again.
PROBE_EVERY_S: Final = 3600.0
PROBE_AGAIN_S: Final = 60.0  # after a probe that told nothing
PROBE_LIMIT_S: Final = 2.0

_PROBE_CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"

Find = Callable[[str], Awaitable[Sequence[HostPort]]]
"""The addresses behind a next hop as users write it, best first; empty when there is none now."""

_log = structlog.get_logger("gatepost.edge")


class _Asked:
    """What is known by one plan. `checked` and `takes_all`: domain -> until when (monotonic seconds).

    `waiting`: how many wait for an answer.
    """

    def __init__(self, plan: CallAheadPlan, clock: Callable[[], float]) -> None:
        self.answers: DirectoryCache[str, bool] = DirectoryCache(plan.positive, plan.negative, plan.stale, clock)
        self.places = asyncio.Semaphore(CONCURRENT)
        self.waiting = 0
        self.checked: dict[str, float] = {}
        self.takes_all: dict[str, float] = {}


class SmtpCallAhead:
    """Asks the hosts in order; `find` looks them up. `helo` is our name. Needs close()."""

    def __init__(self, find: Find, helo: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._find, self._helo, self._clock = find, helo, clock
        self._plans: dict[CallAheadPlan, _Asked] = {}
        self._context: ssl.SSLContext | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def takes(self, plan: CallAheadPlan, address: Address) -> bool:
        asked = self._asked(plan)
        if asked.takes_all.get(address.domain, 0.0) > self._clock():
            metrics.CALL_AHEAD.add(",".join(plan.hosts), "takes-all")
            return True
        asked.waiting += 1
        try:
            return bool(await asked.answers.get(address.key, lambda: self._ask(plan, asked, address)))
        finally:
            asked.waiting -= 1

    def _asked(self, plan: CallAheadPlan) -> _Asked:
        """What is known by a plan; too many are old ones of changed policies, which nobody waits for."""
        asked = self._plans.pop(plan, None) or _Asked(plan, self._clock)
        self._plans[plan] = asked
        if len(self._plans) > MOST_PLANS:
            idle = next((old for old, known in self._plans.items() if not known.waiting and old != plan), None)
            if idle is not None:
                del self._plans[idle]
        return asked

    async def close(self) -> None:
        for asked in self._plans.values():
            await asked.answers.close()
        self._plans.clear()
        if self._leaving:
            await asyncio.wait(set(self._leaving))

    async def _ask(self, plan: CallAheadPlan, asked: _Asked, address: Address) -> bool | None:
        """True or None, as the cache has it. Raises DirectoryUnavailable."""
        reason = ""
        answer = Answer.FAILED
        try:
            async with asyncio.timeout(plan.timeout), asked.places:
                for host in [target for text in plan.hosts for target in await self._find(text)]:
                    try:
                        answer, reason = await self._ask_host(plan, asked, host, address)
                    except HostFailure as failure:
                        reason = f"{host.name or host.address}: {failure.reply.code} {failure.reply.text}"
                    if answer is not Answer.FAILED:
                        break
        except TimeoutError:
            reason = f"no answer within {plan.timeout:g} s"
        metrics.CALL_AHEAD.add(",".join(plan.hosts), answer.value)
        if answer is Answer.FAILED:
            _log.warning("call_ahead.failed", recipient=str(address), reason=reason or "no host was found")
            raise DirectoryUnavailable(f"the next host does not say: {reason}")
        return True if answer is Answer.YES else None

    async def _ask_host(
        self, plan: CallAheadPlan, asked: _Asked, host: HostPort, address: Address
    ) -> tuple[Answer, str]:
        connection = await self._open(plan, host)
        try:
            found = await self._inquire(connection, asked, host, address)
        except BaseException:
            connection.abort()  # it did not answer: it would not answer QUIT either
            raise
        self._leave(connection)
        return found

    async def _inquire(
        self, connection: Connection, asked: _Asked, host: HostPort, address: Address
    ) -> tuple[Answer, str]:
        utf8 = not str(address).isascii()
        if utf8 and not connection.offers("SMTPUTF8"):
            return Answer.NO, "the host takes ASCII addresses only"  # RFC 6531 3.2: it could not be sent there
        mail = await connection.inquire("MAIL", f"MAIL FROM:<>{' SMTPUTF8' if utf8 else ''}")
        if mail.code >= 300:
            return Answer.FAILED, f"{host.name} answers {mail.code} to MAIL FROM:<>"
        rcpt = await connection.inquire("RCPT", f"RCPT TO:<{address}>")
        answer = meaning(rcpt.code, rcpt.enhanced)
        if answer is Answer.YES and asked.checked.get(address.domain, 0.0) <= self._clock():
            await self._probe(connection, asked, address.domain, host)
        return answer, f"{host.name} answers {rcpt.code} {rcpt.enhanced}"

    async def _probe(self, connection: Connection, asked: _Asked, domain: str, host: HostPort) -> None:
        """Whether the host takes an address that nobody can have: then its answers are worth nothing."""
        local = "".join(random.choices(_PROBE_CHARACTERS, k=24))
        if len(asked.checked) >= MOST_DOMAINS:
            asked.checked.clear()
            asked.takes_all.clear()
        asked.checked[domain] = self._clock() + PROBE_AGAIN_S
        try:
            async with asyncio.timeout(PROBE_LIMIT_S):
                reply = await connection.inquire("RCPT", f"RCPT TO:<{local}@{domain}>")
        except (HostFailure, TimeoutError):
            return  # it slows down or hangs up on odd addresses: the answer that we have must not be lost for it
        until = self._clock() + PROBE_EVERY_S
        match meaning(reply.code, reply.enhanced):
            case Answer.YES:
                asked.checked[domain] = asked.takes_all[domain] = until
                _log.warning(
                    "call_ahead.takes_all",
                    domain=domain,
                    host=host.name,
                    reason="the host takes every address, so recipients are not verified: mail that it refuses "
                    "later becomes bounces",
                )
            case Answer.NO:
                asked.checked[domain] = until
                asked.takes_all.pop(domain, None)
            case Answer.FAILED:
                pass

    async def _open(self, plan: CallAheadPlan, host: HostPort) -> Connection:
        """Encrypted where the host offers it, like delivery. Raises HostFailure."""
        if self._context is None:
            self._context = opportunistic_context()
        limits = Limits(plan.timeout, plan.timeout, plan.timeout, plan.timeout, plan.timeout, 0.0, 1, 1)
        try:
            return await open_connection(host, Dialect.SMTP, limits, self._helo, self._context, False)
        except TlsFailed:
            pass
        try:
            return await open_connection(host, Dialect.SMTP, limits, self._helo, None, False)
        except TlsFailed as failed:
            raise HostFailure(failed.reply) from None

    def _leave(self, connection: Connection) -> None:
        """Say QUIT without anybody waiting for its answer."""
        task = asyncio.create_task(connection.quit(), name="call-ahead-quit")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
