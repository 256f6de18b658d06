"""Runs evaluations against a table of DNS records, without any event loop."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gatepost.core.authentication.questions import (
    FAILED,
    NO_SUCH_DOMAIN,
    Asking,
    DnsAnswer,
    Known,
    Question,
)

T = TypeVar("T")
MAX_CNAMES = 8  # as resolvers stop following them


class Zone:
    """The DNS as a table. `asked` lists every question, `rounds` how many were asked at the same time."""

    def __init__(self, records: Mapping[tuple[str, str], Sequence[str]] | None = None) -> None:
        self.records = {(name.lower(), kind): tuple(values) for (name, kind), values in (records or {}).items()}
        self.failing: set[tuple[str, str]] = set()
        self.asked: list[Question] = []
        self.rounds: list[int] = []

    def answer(self, question: Question) -> DnsAnswer:
        self.asked.append(question)
        name = question.name
        for _ in range(MAX_CNAMES):
            if (name, question.kind) in self.failing:
                return FAILED
            found = self.records.get((name, question.kind))
            if found is not None:
                return DnsAnswer(Known.EXISTS, found)
            alias = self.records.get((name, "CNAME"))
            if alias is None:
                exists = any(other == name or other.endswith(f".{name}") for other, _ in self.records)
                return DnsAnswer(Known.EXISTS) if exists else NO_SUCH_DOMAIN
            name = alias[0].lower().removesuffix(".")
        return FAILED

    def settle(self, asking: Asking[T]) -> T:
        """Answer until the result is there."""
        try:
            questions = next(asking)
            while True:
                self.rounds.append(len(questions))
                questions = asking.send(tuple(map(self.answer, questions)))
        except StopIteration as stop:
            result: T = stop.value
            return result


@pytest.fixture
def zone() -> Zone:
    return Zone()


@pytest.fixture
def make_zone() -> Callable[..., Zone]:
    return Zone


class Keys:
    """Private keys as PEM with the key records of their public halves."""

    def __init__(self) -> None:
        rsa_key = rsa.generate_private_key(65537, 2048)
        ed25519_key = ed25519.Ed25519PrivateKey.generate()
        self.rsa, self.ed25519 = pem_of(rsa_key), pem_of(ed25519_key)
        self.rsa_data = base64.b64encode(
            rsa_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).decode()
        self.rsa_record = f"v=DKIM1; k=rsa; p={self.rsa_data}"
        data = base64.b64encode(ed25519_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
        self.ed25519_record = f"v=DKIM1; k=ed25519; p={data}"


def pem_of(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()
