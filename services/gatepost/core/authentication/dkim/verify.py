"""All DKIM signatures of a message: what they want hashed, which keys they name, and what became of each.

    verification = DkimVerification(read_header(header))
    hasher = BodyHasher(verification.wanted)          # shared with ARC: verification.wanted | other.wanted
    hasher.update(chunk) ...
    results = yield from verification.verify(hasher.finish(), now)

Source: RFC 6376 6.1 (verifier actions) with RFC 8301 and RFC 8463. `questions` may be asked while the body is
still coming in, so that the answers are in the resolver's cache when they are needed.
"""

from __future__ import annotations

import hashlib

import msgspec

from gatepost.core.authentication.dkim.acceptance import CLOCK_SKEW, DEFAULT_ACCEPTANCE, GOOD_RSA_BITS, Acceptance
from gatepost.core.authentication.dkim.body_hash import BodyHash, BodyHashes
from gatepost.core.authentication.dkim.canonical_header import CanonicalHeader, canonical_signature
from gatepost.core.authentication.dkim.key_record import (
    KeyRecord,
    KeyRecordError,
    PublicKey,
    choose_record,
    key_bits,
    public_key,
    verifies,
)
from gatepost.core.authentication.dkim.result import DkimSignatureResult, DkimStatus
from gatepost.core.authentication.dkim.signature_field import Signature, SignatureError, read_signature
from gatepost.core.authentication.names import plain
from gatepost.core.authentication.questions import Asking, DnsAnswer, Known, Question, Questions
from gatepost.core.headers import Field

FIELD_NAME = b"dkim-signature"


class DkimVerification:
    """The signatures of one message, from the top; those beyond the limit are not looked at (`unseen`)."""

    def __init__(self, fields: tuple[Field, ...], acceptance: Acceptance = DEFAULT_ACCEPTANCE) -> None:
        found = [field for field in fields if field.name == FIELD_NAME]
        self.unseen = max(0, len(found) - acceptance.max_signatures)
        self._acceptance = acceptance
        self._header = CanonicalHeader(fields)
        self._read = [(field, _read(field, acceptance)) for field in found[: acceptance.max_signatures]]

    @property
    def wanted(self) -> frozenset[BodyHash]:
        """The body hashes that verify() needs."""
        return frozenset(body_hash_of(one) for _, one in self._read if isinstance(one, Signature))

    @property
    def questions(self) -> Questions:
        """The keys, each name once."""
        names = (one.key_name for _, one in self._read if isinstance(one, Signature))
        return tuple(Question(name, "TXT") for name in dict.fromkeys(names))

    def verify(self, bodies: BodyHashes, now: int) -> Asking[tuple[DkimSignatureResult, ...]]:
        """Return a result for each signature, in the header's order; empty when there is none."""
        questions = self.questions
        answers = (yield questions) if questions else ()
        keys = {question.name: answer for question, answer in zip(questions, answers, strict=True)}
        return tuple(
            self._one(field, one, keys[one.key_name], bodies, now) if isinstance(one, Signature) else one
            for field, one in self._read
        )

    def _one(
        self, field: Field, signature: Signature, answer: DnsAnswer, bodies: BodyHashes, now: int
    ) -> DkimSignatureResult:
        result = result_of(signature)
        if signature.expires_at and signature.expires_at + CLOCK_SKEW < now:
            return _ended(result, DkimStatus.POLICY, "expired")
        if signature.signed_at > now + CLOCK_SKEW:
            return _ended(result, DkimStatus.POLICY, "signed in the future")
        if answer.known is Known.FAILED:
            return _ended(result, DkimStatus.TEMPERROR, "no answer for the key")
        try:
            record, key = usable_key(signature, answer, self._acceptance)
        except KeyRecordError as error:
            return _ended(result, DkimStatus.POLICY if error.weak else DkimStatus.PERMERROR, error.reason)
        result = msgspec.structs.replace(
            result, testing=record.testing, key_bits=key_bits(key), weak_key=is_weak(signature, key)
        )
        # 3.6.1 t=s: no i= below d=.
        if record.strict and signature.identity_domain != signature.domain:
            return _ended(result, DkimStatus.PERMERROR, "i= is not exactly d=")
        data = self._header.signed(signature.names, signature.header_canonical, field)
        data += canonical_signature(field, signature.header_canonical)
        digest = hashlib.new(signature.hash_name, data, usedforsecurity=False).digest()
        is_good = verifies(key, signature.signature, digest, signature.hash_name)
        return self._compared(result, signature, bodies, is_good)

    def _compared(
        self, result: DkimSignatureResult, signature: Signature, bodies: BodyHashes, header_is_good: bool
    ) -> DkimSignatureResult:
        body = bodies.get(body_hash_of(signature))
        result = msgspec.structs.replace(result, unsigned_octets=body.length - body.hashed)
        # 3.5 l=: never more than the body has.
        if signature.limit is not None and body.hashed < signature.limit:
            return _ended(result, DkimStatus.FAIL, "l= is more than the body")
        if body.digest != signature.body_hash:
            return _ended(result, DkimStatus.FAIL, "the body was changed")
        if not header_is_good:
            return _ended(result, DkimStatus.FAIL, "the signature does not fit the header")
        # 8.2: anything can be written behind the signed part.
        if result.unsigned_octets and not self._acceptance.partial_body:
            return _ended(result, DkimStatus.POLICY, f"{result.unsigned_octets} octets of the body are not signed")
        return result


def body_hash_of(signature: Signature) -> BodyHash:
    return BodyHash(signature.body_canonical, signature.limit, signature.hash_name)


def result_of(signature: Signature) -> DkimSignatureResult:
    """What the field says of itself, as a pass that is still to be proven."""
    return DkimSignatureResult(
        DkimStatus.PASS,
        domain=signature.domain,
        selector=signature.selector,
        identity=plain(signature.identity),
        algorithm=signature.algorithm,
        signature=signature.shown,
        signed_at=signature.signed_at,
        expires_at=signature.expires_at,
    )


def usable_key(signature: Signature, answer: DnsAnswer, acceptance: Acceptance) -> tuple[KeyRecord, PublicKey]:
    """Return the key of an answer that did not fail. Raises KeyRecordError."""
    record = choose_record(answer.records)
    return record, public_key(record, signature.key_type, signature.hash_name, acceptance.min_rsa_bits)


def is_weak(signature: Signature, key: PublicKey) -> bool:
    return signature.key_type == "rsa" and key_bits(key) < GOOD_RSA_BITS


def _read(field: Field, acceptance: Acceptance) -> Signature | DkimSignatureResult:
    try:
        signature = read_signature(field)
    except SignatureError as error:
        status = DkimStatus.PERMERROR if error.permanent else DkimStatus.NEUTRAL
        return DkimSignatureResult(status, error.reason)
    # RFC 8301 3.1: such a signature has permanently failed.
    if signature.hash_name == "sha1" and not acceptance.sha1:
        return _ended(result_of(signature), DkimStatus.PERMERROR, "rsa-sha1 is no longer a signature")
    return signature


def _ended(result: DkimSignatureResult, status: DkimStatus, reason: str) -> DkimSignatureResult:
    return msgspec.structs.replace(result, status=status, reason=reason)
