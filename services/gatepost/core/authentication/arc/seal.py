"""Adding an ARC set to a message that is changed or passed on (RFC 8617 5.1).

    sealer = ArcSealer("example.net", "s1", pem)
    hasher = BodyHasher({sealer.wanted}) ...                     # the body as it will leave
    added = sealer.seal(fields, hasher.finish(), arc, "mx.example.net", results(...), now)

The three fields go in front of the message; `fields` are those that it will leave with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gatepost.core.authentication.arc.chain import MAX_INSTANCES, read_chain
from gatepost.core.authentication.arc.result import ArcResult, ArcStatus
from gatepost.core.authentication.arc.verify import sealed_data
from gatepost.core.authentication.dkim.body_hash import BodyHash, BodyHashes
from gatepost.core.authentication.dkim.canonical_header import Canonical, CanonicalHeader, canonical_signature
from gatepost.core.authentication.dkim.sign import (
    FieldPolicy,
    SigningKey,
    fields_to_sign,
    in_base64,
    key_place,
    write_tags,
)
from gatepost.core.authentication.folding import folded
from gatepost.core.headers import Field, field_of

# Signatures of others are covered too (4.1.2); what is added at every hop is not.
ARC_SIGNED: Final = FieldPolicy(signed=(*FieldPolicy().signed, "dkim-signature"))
# A fold within b= is white space that the seals over it cover: there is none, but for keys of over 5,000 bits,
# whose line would pass the 998 octets of RFC 5322 2.1.1.
_BASE64_WIDTH: Final = 900


class ArcSealer:
    """Seals for one domain with one key; relaxed/relaxed, the whole body."""

    wanted: Final = BodyHash(Canonical.RELAXED)

    def __init__(self, domain: str, selector: str, pem: bytes, policy: FieldPolicy = ARC_SIGNED) -> None:
        """Raises SigningError."""
        self._domain, self._selector = key_place(domain, selector)
        self._key = SigningKey(pem)
        self._policy = policy

    def seal(
        self,
        fields: tuple[Field, ...],
        bodies: BodyHashes,
        arc: ArcResult,
        authserv_id: str,
        results: Sequence[str],
        now: int,
        names: Sequence[str] = (),
    ) -> bytes | None:
        """Return seal, message signature and results, each with CR LF; None when no set may or should be added.

        `arc` is what validation of the message as received gave; `results` the parts of our
        Authentication-Results; `names` overrides the policy's h=. None: the chain says already that it failed,
        it has 50 sets (5.1), or a key could not be looked up, which must not be sealed as a failure for good.
        Raises SigningError for a message without From.
        """
        if arc.closed or arc.instances >= MAX_INSTANCES or arc.temporary:
            return None
        instance = str(arc.instances + 1)
        text = folded(f"ARC-Authentication-Results: i={instance};", [authserv_id, *(results or ["none"])])
        results_field = field_of(text.encode("utf-8"))
        signature = self._message_signature(fields, bodies, instance, now, names)
        covered = sealed_data(results_field, signature)
        # 5.1.2: a seal that says "fail" covers its own set only, as if there were no other.
        if arc.status is ArcStatus.PASS:
            earlier = (sealed_data(one.results, one.message_signature, one.seal) for one in read_chain(fields).sets)
            covered = b"".join(earlier) + covered
        seal = self._seal(covered, arc, instance, now)
        return b"".join(field.raw + b"\r\n" for field in (seal, signature, results_field))

    def _message_signature(
        self, fields: tuple[Field, ...], bodies: BodyHashes, instance: str, now: int, names: Sequence[str]
    ) -> Field:
        chosen = list(names) or fields_to_sign(fields, self._policy)
        tags = {
            "a": self._key.algorithm,
            "b": "",
            "bh": in_base64(bodies.get(self.wanted).digest),
            "c": "relaxed/relaxed",
            "d": self._domain,
            "h": ":".join(chosen),
            "i": instance,
            "s": self._selector,
            "t": str(now),
        }
        data = CanonicalHeader(fields).signed(chosen, Canonical.RELAXED)
        return self._signed("ARC-Message-Signature", tags, data)

    def _seal(self, covered: bytes, arc: ArcResult, instance: str, now: int) -> Field:
        tags = {
            "a": self._key.algorithm,
            "b": "",
            "cv": str(arc.status),
            "d": self._domain,
            "i": instance,
            "s": self._selector,
            "t": str(now),
        }
        return self._signed("ARC-Seal", tags, covered)

    def _signed(self, name: str, tags: dict[str, str], data: bytes) -> Field:
        """Sign data and the field itself without b=."""
        empty = canonical_signature(field_of(write_tags(name, tags)), Canonical.RELAXED)
        return field_of(write_tags(name, {**tags, "b": in_base64(self._key.sign(data + empty))}, _BASE64_WIDTH))
