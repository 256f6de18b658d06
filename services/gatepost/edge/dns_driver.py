"""Runs an evaluation of core.authentication over the Resolver port: asks what it yields, within one deadline.

    driven = await drive(check_mail_from(...), resolver, limit=10.0)
    driven.result, driven.questions

The evaluation never sees an exception (docs/adr/0009): a question that fails, that comes after the deadline or
above the limit is answered as failed, and the evaluation ends by its own rules, mostly with temperror.
"""

from __future__ import annotations

import asyncio
from typing import Final, Generic, TypeVar

import msgspec

from gatepost.core.authentication.questions import (
    FAILED,
    NO_SUCH_DOMAIN,
    Answers,
    Asking,
    DnsAnswer,
    Known,
    Question,
    Questions,
)
from gatepost.core.ports.resolver import NoSuchDomain, Resolver, ResolverFailure

T = TypeVar("T")

# One SPF check may ask 120 times, one ARC chain 51; a DMARC check with four authors and ten signatures 350, which
# no honest message comes near.
MAX_QUESTIONS: Final = 200
# More would only wait in the resolver, and each takes a socket.
MAX_AT_ONCE: Final = 10


class Driven(msgspec.Struct, Generic[T], frozen=True):
    """The evaluation's result. `questions`: asked of the resolver, each once; `failed`: without a usable answer."""

    result: T
    questions: int
    failed: int


async def drive(asking: Asking[T], resolver: Resolver, limit: float, most: int = MAX_QUESTIONS) -> Driven[T]:
    """Run an evaluation to its end, at most `limit` seconds of waiting for the DNS and `most` questions.

    The same question has the same answer all through one evaluation, and is asked once.
    """
    driver = _Driver(resolver, asyncio.get_running_loop().time() + limit, most)
    try:
        questions = next(asking)
        while True:
            questions = asking.send(await driver.answers(questions))
    except StopIteration as stop:
        return Driven(stop.value, driver.asked, driver.failed)
    finally:
        asking.close()


class _Driver:
    def __init__(self, resolver: Resolver, deadline: float, most: int) -> None:
        self._resolver = resolver
        self._deadline = deadline
        self._most = most
        self._known: dict[Question, DnsAnswer] = {}
        self._late = False
        self._gate = asyncio.Semaphore(MAX_AT_ONCE)
        self.asked = 0
        self.failed = 0

    async def answers(self, questions: Questions) -> Answers:
        new = [question for question in dict.fromkeys(questions) if question not in self._known]
        if len(new) == 1:
            await self._ask(new[0])
        elif new:
            async with asyncio.TaskGroup() as group:
                for question in new:
                    group.create_task(self._ask(question))
        return tuple(self._known[question] for question in questions)

    async def _ask(self, question: Question) -> None:
        answer = FAILED
        try:
            async with asyncio.timeout_at(self._deadline), self._gate:
                if self.asked < self._most and not self._late:
                    self.asked += 1
                    answer = await self._query(question)
        except TimeoutError:
            self._late = True
        self.failed += answer.known is Known.FAILED
        self._known[question] = answer

    async def _query(self, question: Question) -> DnsAnswer:
        # The port takes names in text, where a backslash begins an escape (RFC 1035 5.1); macros of SPF can put
        # one from a local part into a name.
        name = question.name.replace("\\", "\\\\")
        try:
            answer = await self._resolver.query(name, question.kind)
        except NoSuchDomain:
            return NO_SUCH_DOMAIN
        except ResolverFailure:
            return FAILED
        return DnsAnswer(Known.EXISTS, answer.records, answer.secure)
