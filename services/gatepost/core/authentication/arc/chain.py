"""The ARC sets of a message and what must be true of them before any key is asked for (RFC 8617 4.2, 5.2)."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from gatepost.core.authentication.dkim.signature_field import (
    Signature,
    SignatureError,
    read_algorithm,
    read_common,
    read_key_place,
    read_number,
)
from gatepost.core.authentication.tag_list import TagListError, base64_octets, field_text, read_tags
from gatepost.core.headers import Field

MAX_INSTANCES: Final = 50  # RFC 8617 4.2.1

RESULTS: Final = b"arc-authentication-results"
MESSAGE_SIGNATURE: Final = b"arc-message-signature"
SEAL: Final = b"arc-seal"

# instance = 1*2DIGIT ; 1 to 50 (4.2.1)
_INSTANCE: Final = re.compile(r"0?[1-9]|[1-9][0-9]")
# arc-info = instance [CFWS] ";" authres-payload (4.1.1)
_RESULTS_INSTANCE: Final = re.compile(r"[ \t\r\n]*i[ \t\r\n]*=[ \t\r\n]*([0-9]{1,3})[ \t\r\n]*;")


class ChainError(ValueError):
    """The chain is broken. `reason` is safe to show; `instances` the highest instance that could be read."""

    def __init__(self, reason: str, instances: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.instances = instances


class Seal(msgspec.Struct, frozen=True):
    """The tags of an ARC-Seal (4.1.3)."""

    validation: str  # cv=
    key_type: str
    hash_name: str
    domain: str
    selector: str
    signature: bytes

    @property
    def key_name(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"


class ArcSet(msgspec.Struct, frozen=True):
    instance: int
    results: Field
    message_signature: Field
    seal: Field


class Chain(msgspec.Struct, frozen=True):
    """Sets 1 to N in order with their seals, and the newest message signature."""

    sets: tuple[ArcSet, ...]
    seals: tuple[Seal, ...]
    newest: Signature


def has_chain(fields: tuple[Field, ...]) -> bool:
    return any(field.name in (RESULTS, MESSAGE_SIGNATURE, SEAL) for field in fields)


def newest_seal_fails(fields: tuple[Field, ...]) -> bool:
    """Whether the seal with the highest instance says cv=fail (5.2 step 2; 5.1: nothing is added then)."""
    newest, validation = 0, ""
    for field in fields:
        if field.name == SEAL:
            try:
                tags = read_tags(field_text(field.value))
                instance = _instance(tags.get("i", ""))
            except (TagListError, ChainError):
                continue
            if instance >= newest:
                newest, validation = instance, tags.get("cv", "")
    return validation == "fail"


def read_chain(fields: tuple[Field, ...]) -> Chain:
    """Read the sets (5.2 steps 1 and 3). Raises ChainError. Linear in the header, and at most 50 sets."""
    found: dict[bytes, dict[int, Field]] = {RESULTS: {}, MESSAGE_SIGNATURE: {}, SEAL: {}}
    tags: dict[tuple[bytes, int], dict[str, str]] = {}
    highest = 0
    try:
        for field in fields:
            if field.name not in found:
                continue
            instance, read = _read(field)
            highest = max(highest, instance)
            if instance in found[field.name]:
                raise ChainError(f"two fields of one kind in set {instance}")
            found[field.name][instance] = field
            tags[field.name, instance] = read
        sets = tuple(_set(found, instance) for instance in range(1, highest + 1))
        seals = tuple(_seal(tags[SEAL, one.instance], one.instance) for one in sets)
        return Chain(sets, seals, _newest(tags[MESSAGE_SIGNATURE, highest]))
    except ChainError as error:
        raise ChainError(error.reason, highest) from None
    except SignatureError as error:
        raise ChainError(error.reason, highest) from None


def _read(field: Field) -> tuple[int, dict[str, str]]:
    text = field_text(field.value)
    if field.name == RESULTS:
        found = _RESULTS_INSTANCE.match(text)
        return _instance(found.group(1) if found else ""), {}
    try:
        tags = read_tags(text)
    except TagListError as error:
        raise ChainError(f"syntax: {error}") from None
    return _instance(tags.get("i", "")), tags


def _instance(text: str) -> int:
    if _INSTANCE.fullmatch(text) is None or int(text) > MAX_INSTANCES:
        raise ChainError("no instance from 1 to 50")
    return int(text)


def _set(found: dict[bytes, dict[int, Field]], instance: int) -> ArcSet:
    try:
        return ArcSet(instance, found[RESULTS][instance], found[MESSAGE_SIGNATURE][instance], found[SEAL][instance])
    except KeyError:
        raise ChainError(f"set {instance} is not whole") from None


def _seal(tags: dict[str, str], instance: int) -> Seal:
    """4.1.3; cv= is none in the first set and pass in every other (5.2 step 3)."""
    if "h" in tags:
        raise ChainError("a seal has h=")
    _, (key_type, hash_name) = read_algorithm(tags)
    if hash_name == "sha1":
        raise ChainError("rsa-sha1 is no longer a signature")
    domain, selector = read_key_place(tags)
    read_number(tags, "t")
    signature = base64_octets(tags.get("b", ""))
    if signature is None:
        raise ChainError("b= is not base64")
    if tags.get("cv") != ("none" if instance == 1 else "pass"):
        raise ChainError(f"the seal of set {instance} has another cv=")
    return Seal(tags["cv"], key_type, hash_name, domain, selector, signature)


def _newest(tags: dict[str, str]) -> Signature:
    # 4.1.2 names no default of its own; relaxed is the one of the suite and of the verifiers that pass it.
    signature = read_common(tags, canonical="relaxed/relaxed")
    if signature.hash_name == "sha1":
        raise ChainError("rsa-sha1 is no longer a signature")
    # 4.1.2: an AMS never covers seals, which come after it.
    if "arc-seal" in signature.names:
        raise ChainError("a message signature covers seals")
    return signature
