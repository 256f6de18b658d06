"""Validation of an ARC chain (RFC 8617 5.2): the newest message signature, then every seal.

    verification = ArcVerification(read_header(header))
    hasher = BodyHasher(verification.wanted) ...
    result = yield from verification.verify(hasher.finish())

At most 51 keys are asked for, all at once; the header's sets are hashed once for all seals together.
"""

from __future__ import annotations

import hashlib

from gatepost.core.authentication.arc.chain import (
    Chain,
    ChainError,
    has_chain,
    newest_seal_fails,
    read_chain,
)
from gatepost.core.authentication.arc.result import ArcResult, ArcStatus
from gatepost.core.authentication.dkim.acceptance import DEFAULT_ACCEPTANCE, Acceptance
from gatepost.core.authentication.dkim.body_hash import BodyHash, BodyHashes
from gatepost.core.authentication.dkim.canonical_header import (
    Canonical,
    CanonicalHeader,
    canonical_field,
    canonical_signature,
)
from gatepost.core.authentication.dkim.key_record import KeyRecordError, choose_record, public_key, verifies
from gatepost.core.authentication.questions import Asking, DnsAnswer, Known, Question, Questions
from gatepost.core.headers import Field


class _Failed(Exception):
    def __init__(self, reason: str, *, temporary: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.temporary = temporary


class ArcVerification:
    """The chain of one message."""

    def __init__(self, fields: tuple[Field, ...], acceptance: Acceptance = DEFAULT_ACCEPTANCE) -> None:
        self._acceptance = acceptance
        self._header = CanonicalHeader(fields)
        self._chain: Chain | None = None
        self._closed = newest_seal_fails(fields)
        self._problem = ArcResult(ArcStatus.NONE)
        if not has_chain(fields):
            return
        try:
            self._chain = read_chain(fields)
        except ChainError as error:
            reason = "the newest seal says so" if self._closed else error.reason
            self._problem = ArcResult(ArcStatus.FAIL, reason, error.instances, closed=self._closed)

    @property
    def wanted(self) -> frozenset[BodyHash]:
        """The body hash that verify() needs, if any."""
        if self._chain is None:
            return frozenset()
        newest = self._chain.newest
        return frozenset({BodyHash(newest.body_canonical, newest.limit, newest.hash_name)})

    @property
    def questions(self) -> Questions:
        """The keys, each name once."""
        if self._chain is None:
            return ()
        names = (self._chain.newest.key_name, *(seal.key_name for seal in reversed(self._chain.seals)))
        return tuple(Question(name, "TXT") for name in dict.fromkeys(names))

    def verify(self, bodies: BodyHashes) -> Asking[ArcResult]:
        chain = self._chain
        if chain is None:
            return self._problem
        questions = self.questions
        answers = yield questions
        keys = {question.name: answer for question, answer in zip(questions, answers, strict=True)}
        count = len(chain.sets)
        try:
            self._check_newest(chain, keys, bodies)
            self._check_seals(chain, keys)
        except _Failed as failed:
            return ArcResult(ArcStatus.FAIL, failed.reason, count, temporary=failed.temporary)
        return ArcResult(ArcStatus.PASS, "", count, tuple(seal.domain for seal in reversed(chain.seals)))

    def _check_newest(self, chain: Chain, keys: dict[str, DnsAnswer], bodies: BodyHashes) -> None:
        """5.2 step 4. Older message signatures may be broken by later changes, which is what ARC is for."""
        newest, field = chain.newest, chain.sets[-1].message_signature
        body = bodies.get(BodyHash(newest.body_canonical, newest.limit, newest.hash_name))
        if newest.limit is not None and body.hashed < newest.limit:
            raise _Failed("l= is more than the body")
        if body.hashed < body.length and not self._acceptance.partial_body:
            raise _Failed("the message signature does not cover the whole body")
        if body.digest != newest.body_hash:
            raise _Failed("the body was changed")
        data = self._header.signed(newest.names, newest.header_canonical, field)
        data += canonical_signature(field, newest.header_canonical)
        digest = hashlib.new(newest.hash_name, data).digest()
        what = "the message signature"
        self._check(keys[newest.key_name], newest.key_type, newest.hash_name, newest.signature, digest, what)

    def _check_seals(self, chain: Chain, keys: dict[str, DnsAnswer]) -> None:
        """5.2 step 6 with 5.1.1: each seal covers all sets up to its own, relaxed, its own value left out."""
        running = hashlib.sha256()
        for one, seal in zip(chain.sets, chain.seals, strict=True):
            running.update(sealed_data(one.results, one.message_signature))
            covered = running.copy()
            covered.update(canonical_signature(one.seal, Canonical.RELAXED))
            digest = covered.digest()
            what = f"seal {one.instance}"
            self._check(keys[seal.key_name], seal.key_type, seal.hash_name, seal.signature, digest, what)
            running.update(sealed_data(one.seal))

    def _check(
        self, answer: DnsAnswer, key_type: str, hash_name: str, signature: bytes, digest: bytes, what: str
    ) -> None:
        if answer.known is Known.FAILED:
            raise _Failed(f"no answer for the key of {what}", temporary=True)
        try:
            key = public_key(choose_record(answer.records), key_type, hash_name, self._acceptance.min_rsa_bits)
        except KeyRecordError as error:
            raise _Failed(f"{what}: {error.reason}") from None
        if not verifies(key, signature, digest, hash_name):
            raise _Failed(f"{what} does not fit")


def sealed_data(*fields: Field) -> bytes:
    """Whole fields as seals cover them (5.1.1); of a set in the order results, message signature, seal."""
    return b"".join(canonical_field(field, Canonical.RELAXED) + b"\r\n" for field in fields)
