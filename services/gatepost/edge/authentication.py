"""Who sent a message, found out while it comes: SPF from MAIL on, DKIM and ARC keys with the header, DMARC last.

    begin           at MAIL: SPF in the background; None where the policy does not ask or the client is one of ours
    settle_sender   at RCPT, only where SPF can refuse
    content         each piece of the content: the header is read when it is whole, the body hashed in passing
    conclude        behind the final dot: at most `deadline` seconds more, whatever the DNS does

What was found is written into the envelope (`field`, `strip`, `trust`), never into the message (docs/adr/0011).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import structlog

from gatepost.core.authentication.arc import ArcVerification
from gatepost.core.authentication.dkim import BodyHasher, DkimVerification
from gatepost.core.authentication.dmarc import check_dmarc
from gatepost.core.authentication.questions import Asking, DnsAnswer, Question, Questions, remembering, together
from gatepost.core.authentication.results_field import forged_spans, results_field
from gatepost.core.authentication.spf import SpfIdentity, SpfResult, SpfStatus, check_mail_from
from gatepost.core.checks import authentication as check
from gatepost.core.checks.authentication import AuthenticationPolicy, Findings, SpfActions
from gatepost.core.checks.verdict import Verdict
from gatepost.core.data_reader import DataReader
from gatepost.core.envelope import Trust
from gatepost.core.headers import Field, read_header
from gatepost.core.reply import Reply
from gatepost.edge import journal
from gatepost.edge.client_verdicts import is_own
from gatepost.edge.dns_driver import drive
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction

T = TypeVar("T")

# RFC 7208 4.6.4: at least 20 s for a whole check. Nobody waits as long behind the dot: `deadline` comes first then.
BACKGROUND_LIMIT: Final = 20.0
# No honest message has more; each that is left out lengthens the envelope by some bytes.
MAX_FORGED: Final = 100

_log = structlog.get_logger("gatepost.edge")


class Authentication:
    """Of one transaction; close() ends what runs. `facts` are the results in short, once they are known."""

    def __init__(self, session: Session, transaction: Transaction, policy: AuthenticationPolicy) -> None:
        deps = session.server.deps
        self._session, self._transaction = session, transaction
        self._resolver, self._now = deps.resolver, deps.now_ms() // 1000
        self._name = policy.authserv_id or session.server.hostname
        self._known: dict[Question, DnsAnswer] = {}
        self._spf: SpfResult | None = None
        self._spf_told: set[SpfActions] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._message: _Message | None = None
        self.field = ""
        self.strip: tuple[tuple[int, int], ...] = ()
        self.trust = Trust.UNVERIFIED
        self.facts: dict[str, str] = {}
        # Who has logged in is not judged, but may no more write in our name than others.
        self._judges = session.account is None
        if self._judges:
            self._start("spf", self._check_spf())

    # -- what runs beside the session

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = self._session.loop.create_task(work)

    def close(self) -> None:
        """Nobody asks any more; again is fine."""
        for task in self._tasks.values():
            task.cancel()

    async def _wait(self, name: str, deadline: float) -> None:
        """Wait for a task until `deadline` in the loop's time, then give it up."""
        task = self._tasks.get(name)
        if task is not None:
            await asyncio.wait({task}, timeout=max(0.0, deadline - self._session.loop.time()))
            task.cancel()

    async def _check_spf(self) -> None:
        session, sender = self._session, self._transaction.mail.address
        try:
            asking = check_mail_from(
                session.client, session.helo, str(sender or ""), session.server.hostname, self._now
            )
            self._spf = (await drive(asking, self._resolver, BACKGROUND_LIMIT)).result
        except Exception:
            _log.exception("internal error in SPF", client=session.client, sender=str(sender or ""))

    async def _ask_early(self, message: _Message) -> None:
        try:
            await drive(remembering(message.early(), self._known), self._resolver, BACKGROUND_LIMIT)
        except Exception:
            _log.exception("internal error while asking for keys", client=self._session.client)

    # -- RCPT

    @property
    def refuses_senders(self) -> bool:
        """Whether RCPT has to wait for SPF."""
        return self._judges and self._transaction.table.spf_refuses

    async def settle_sender(self) -> None:
        """Wait for SPF; it has a limit of its own."""
        await self._wait("spf", self._session.loop.time() + BACKGROUND_LIMIT)

    @property
    def spf_status(self) -> SpfStatus | None:
        """What SPF says, once it is settled; None where nobody asks or nothing came in time."""
        return None if self._spf is None else self._spf.status

    def sender_verdicts(self, policy: AuthenticationPolicy | None) -> tuple[Verdict, ...]:
        """What SPF says of the sender, where it acts at RCPT already, for recipients under this policy."""
        if policy is None or not (self._judges and policy.spf.refuse) or self._exempt:
            return ()
        verdict = check.evaluate_spf(policy.spf, self._spf or self._spf_away())
        if verdict is None:
            return ()
        if policy.spf not in self._spf_told:
            self._spf_told.add(policy.spf)
            journal.judged(self._session.server.deps, self._session, verdict)
        return (verdict,)

    def _spf_away(self) -> SpfResult:
        sender = self._transaction.mail.address
        domain = self._session.helo if sender is None else sender.domain
        return SpfResult(
            SpfStatus.TEMPERROR, SpfIdentity.MAIL_FROM, domain, str(sender or ""), reason="no answer in time"
        )

    @property
    def _exempt(self) -> bool:
        """Whether the client is known to be good, so that what is found is noted and has no effect."""
        verdicts = self._session.verdicts
        return verdicts is not None and verdicts.is_exempt

    # -- the content

    def content(self, reader: DataReader, piece: bytes) -> None:
        """The next piece of the content, without any fault so far."""
        if self._message is not None:
            self._message.hasher.update(piece)
        elif self._judges and reader.header_complete:
            self._message = message = _Message(bytes(reader.header))
            # Of the pieces so far all before this one were header; the empty line has two octets.
            begun = reader.size - len(reader.header) - 2
            if begun > 0:
                message.hasher.update(piece[-begun:])
            self._start("keys", self._ask_early(message))

    # -- behind the final dot

    async def conclude(self, reader: DataReader) -> Reply | Sequence[Verdict]:
        """Judge the whole message: what was found goes into the envelope, unless the message is refused."""
        policy = self._transaction.content_policy.authentication
        if policy is None or self._transaction.relays_by_itself:
            return ()  # one of our own after all, perhaps another host of this site that wrote in our name
        self.strip = forged_spans(bytes(reader.header), {self._name})
        if len(self.strip) > MAX_FORGED:
            return check.FORGED_RESULTS
        if not self._judges:
            return ()
        findings = await self._find(policy, self._message or _Message(bytes(reader.header)))
        self._note(findings)
        return () if self._exempt else self._verdicts(policy, findings)

    async def _find(self, policy: AuthenticationPolicy, message: _Message) -> Findings:
        deadline = self._session.loop.time() + policy.deadline
        await self._wait("spf", deadline)
        await self._wait("keys", deadline)
        spf, bodies = self._spf or self._spf_away(), message.hasher.finish()
        signatures = await self._drive(message.dkim.verify(bodies, self._now), deadline)
        arc = await self._drive(message.arc.verify(bodies), deadline)
        dmarc = await self._drive(check_dmarc(message.fields, spf, signatures), deadline)
        vouched = check.is_vouched(message.fields, arc, dmarc.author_domain, policy.trusted_sealers)
        return Findings(spf, signatures, arc, dmarc, vouched)

    async def _drive(self, asking: Asking[T], deadline: float) -> T:
        left = max(0.0, deadline - self._session.loop.time())
        return (await drive(remembering(asking, self._known), self._resolver, left)).result

    def _note(self, findings: Findings) -> None:
        """Into the envelope, the trace and the metrics."""
        sender, signatures = self._transaction.mail.address, findings.signatures
        self.trust = check.trust_of(sender, findings.spf, signatures)
        self.field = results_field(
            self._name, spf=findings.spf, signatures=signatures, arc=findings.arc, dmarc=findings.dmarc
        )
        self.facts = findings.facts()
        for method in ("spf", "dkim", "dmarc", "arc") if not journal.ASIDE.get() else ():
            metrics.AUTHENTICATION.add(self._session.listener.name, method, self.facts[method])
        self._transaction.event("authentication", **self.facts)

    def _verdicts(self, policy: AuthenticationPolicy, findings: Findings) -> list[Verdict]:
        told = policy.spf in self._spf_told  # what SPF refused, quarantined or tagged at RCPT is done
        found = [one for one in check.evaluate(policy, findings) if not (told and one.check == "spf")]
        found = [msgspec.structs.replace(one, facts={**self.facts, **one.facts}) for one in found]
        for verdict in found:
            journal.judged(self._session.server.deps, self._session, verdict)
        return found


class _Message:
    """A header that is whole, and what its signatures want of the body. No octet of the body is kept."""

    def __init__(self, header: bytes) -> None:
        self.fields: tuple[Field, ...] = read_header(header)
        self.dkim, self.arc = DkimVerification(self.fields), ArcVerification(self.fields)
        self.hasher = BodyHasher(self.dkim.wanted | self.arc.wanted)

    def early(self) -> Asking[list[object]]:
        """What can be asked before the body is here: the keys, and the policy of the author's domain."""
        return together((_all_of(self.dkim.questions + self.arc.questions), _policy_of(self.fields)))


def _all_of(questions: Questions) -> Asking[object]:
    return (yield questions) if questions else None


def _policy_of(fields: tuple[Field, ...]) -> Asking[object]:
    return (yield from check_dmarc(fields, None, ()))


def begin(session: Session, transaction: Transaction, policy: AuthenticationPolicy) -> Authentication | None:
    """MAIL was taken, and `policy` or a domain's layer asks. None for a network that may relay."""
    if session.account is None and is_own(session):
        return None
    return Authentication(session, transaction, policy)
