"""DNS questions as values: an evaluation yields what it must know and is sent the answers (docs/adr/0009).

An evaluation is a generator. Each yield is a tuple of questions that may be asked at the same time; what is
sent back is a tuple of answers in the same order. It never fails because of the DNS: a question without a usable
answer is answered with `Known.FAILED`, and the evaluation's own rules say what that means.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Sequence
from typing import Final, Literal, TypeVar

import msgspec

Kind = Literal["A", "AAAA", "MX", "PTR", "TXT"]
T = TypeVar("T")


class Known(enum.Enum):
    """What the DNS said of a name."""

    EXISTS = enum.auto()  # NOERROR, with records of the type or without any (NODATA)
    NO_SUCH_DOMAIN = enum.auto()  # NXDOMAIN (RFC 2308 2.1)
    FAILED = enum.auto()  # SERVFAIL, REFUSED, a time-out, or the evaluation's time is up


class Question(msgspec.Struct, frozen=True):
    """Records of one type of one name: lower case, without the final dot; a label may hold any ASCII but ".".

    For PTR the name is the reverse name (RFC 1035 3.5, RFC 3596 2.5).
    """

    name: str
    kind: Kind


class DnsAnswer(msgspec.Struct, frozen=True):
    """Records in text form: addresses, "10 mx.example" for MX, names, and TXT with its strings joined.

    `secure`: a validating resolver vouched for it (RFC 4035 3.2.3).
    """

    known: Known
    records: tuple[str, ...] = ()
    secure: bool = False

    @property
    def is_void(self) -> bool:
        """No records, for sure (RFC 7208 4.6.4: NOERROR without any answer, or NXDOMAIN)."""
        return self.known is not Known.FAILED and not self.records


NO_SUCH_DOMAIN: Final = DnsAnswer(Known.NO_SUCH_DOMAIN)
FAILED: Final = DnsAnswer(Known.FAILED)

Questions = tuple[Question, ...]
Answers = tuple[DnsAnswer, ...]
Asking = Generator[Questions, Answers, T]


def ask(name: str, kind: Kind) -> Asking[DnsAnswer]:
    """Ask one question."""
    answers = yield (Question(name, kind),)
    return answers[0]


def remembering(asking: Asking[T], known: dict[Question, DnsAnswer]) -> Asking[T]:
    """Run an evaluation, taking what is `known` from there and adding what is answered, failures too."""
    try:
        questions = next(asking)
        while True:
            new = tuple(question for question in dict.fromkeys(questions) if question not in known)
            if new:
                answers = yield new
                known.update(zip(new, answers, strict=True))
            questions = asking.send(tuple(known[question] for question in questions))
    except StopIteration as stop:
        result: T = stop.value
        return result


def together(evaluations: Sequence[Asking[T]]) -> Asking[list[T]]:
    """Run evaluations side by side: each round of questions of all of them goes out at once."""
    results: dict[int, T] = {}
    waiting: dict[int, Questions] = {}
    for index, evaluation in enumerate(evaluations):
        try:
            waiting[index] = next(evaluation)
        except StopIteration as stop:
            results[index] = stop.value
    while waiting:
        answers = yield tuple(question for questions in waiting.values() for question in questions)
        at = 0
        for index, questions in list(waiting.items()):
            mine = answers[at : at + len(questions)]
            at += len(questions)
            try:
                waiting[index] = evaluations[index].send(mine)
            except StopIteration as stop:
                del waiting[index]
                results[index] = stop.value
    return [results[index] for index in range(len(evaluations))]
