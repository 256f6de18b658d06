"""Key records (RFC 6376 3.6.1, RFC 8463 4.2) and public keys within limits that bound what they cost to use."""

from __future__ import annotations

from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gatepost.core.authentication.dkim.acceptance import MAX_KEY_RECORD, MAX_RSA_BITS, MAX_RSA_EXPONENT
from gatepost.core.authentication.tag_list import TagListError, base64_octets, colon_list, read_tags

ED25519_BITS: Final = 256
_ED25519_OCTETS: Final = 32  # RFC 8463 4.2: the key itself, not a SubjectPublicKeyInfo

PublicKey = RSAPublicKey | Ed25519PublicKey


class KeyRecordError(ValueError):
    """No usable key; the message is safe to show. `weak`: a good key that is shorter than we accept."""

    def __init__(self, reason: str, *, weak: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.weak = weak


class KeyRecord(msgspec.Struct, frozen=True):
    """A key record that may be used for mail. `hash_names` empty: any."""

    key_type: str
    data: str  # p=, base64
    hash_names: tuple[str, ...]
    testing: bool
    strict: bool  # t=s: i= must have exactly the domain of d=


def choose_record(records: tuple[str, ...]) -> KeyRecord:
    """Return the one key record among the TXT records of a name. Raises KeyRecordError.

    RFC 6376 3.6.2.2 leaves several records undefined: what is no key record at all is passed over, and of two
    key records neither is taken, since their order is chance.
    """
    found: list[KeyRecord] = []
    problem = KeyRecordError("no key record")
    for text in records:
        try:
            found.append(read_record(text))
        except KeyRecordError as error:
            problem = error
    if not found:
        raise problem
    if len(found) > 1:
        raise KeyRecordError("several key records")
    return found[0]


def read_record(text: str) -> KeyRecord:
    """Read one record. g= and n= mean nothing (RFC 6376 C.2, 3.6.1). Raises KeyRecordError."""
    if len(text) > MAX_KEY_RECORD:
        raise KeyRecordError("the key record is too long")
    try:
        tags = read_tags(text)
    except TagListError:
        raise KeyRecordError("the key record is no list of tags") from None
    # 3.6.1 v=: first if it is there at all, and compared as it is.
    if "v" in tags and (next(iter(tags)) != "v" or tags["v"] != "DKIM1"):
        raise KeyRecordError("the key record has another version")
    if "p" not in tags:
        raise KeyRecordError("the key record has no key")
    if not tags["p"]:
        raise KeyRecordError("the key was revoked")
    services = colon_list(tags.get("s", "*"))
    if "*" not in services and "email" not in services:
        raise KeyRecordError("the key is not for mail")
    flags = colon_list(tags.get("t", ""))
    hash_names = tuple(colon_list(tags["h"])) if "h" in tags else ()
    return KeyRecord(tags.get("k", "rsa"), tags["p"], hash_names, "y" in flags, "s" in flags)


def public_key(record: KeyRecord, key_type: str, hash_name: str, min_rsa_bits: int) -> PublicKey:
    """Return the key for an algorithm. Raises KeyRecordError."""
    if record.key_type != key_type:
        raise KeyRecordError("the key is of another type")
    if record.hash_names and hash_name not in record.hash_names:
        raise KeyRecordError("the key is not for this hash")
    octets = base64_octets(record.data)
    if octets is None:
        raise KeyRecordError("the key is not base64")
    return _ed25519(octets) if key_type == "ed25519" else _rsa(octets, min_rsa_bits)


def key_bits(key: PublicKey) -> int:
    return key.key_size if isinstance(key, RSAPublicKey) else ED25519_BITS


def verifies(key: PublicKey, signature: bytes, digest: bytes, hash_name: str) -> bool:
    """Whether the signature is the key's over data with this digest."""
    try:
        if isinstance(key, RSAPublicKey):
            algorithm = Prehashed(hashes.SHA1() if hash_name == "sha1" else hashes.SHA256())  # noqa: S303 -- replay
            key.verify(signature, digest, padding.PKCS1v15(), algorithm)
        else:
            key.verify(signature, digest)  # RFC 8463 3: Ed25519 signs the SHA-256 of the data, not the data
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _ed25519(octets: bytes) -> PublicKey:
    if len(octets) != _ED25519_OCTETS:
        raise KeyRecordError("an Ed25519 key has 32 octets")
    try:
        return Ed25519PublicKey.from_public_bytes(octets)
    except (UnsupportedAlgorithm, ValueError):
        raise KeyRecordError("the key cannot be read") from None


def _rsa(octets: bytes, min_bits: int) -> PublicKey:
    """SubjectPublicKeyInfo, or RSAPublicKey as the text of RFC 6376 3.6.1 has it (erratum 3017)."""
    try:
        key = load_der_public_key(octets)
    except (UnsupportedAlgorithm, ValueError):
        raise KeyRecordError("the key cannot be read") from None
    if not isinstance(key, RSAPublicKey):
        raise KeyRecordError("the key is of another type")
    if key.key_size > MAX_RSA_BITS or key.public_numbers().e > MAX_RSA_EXPONENT:
        raise KeyRecordError("the key is too large")
    if key.key_size < min_bits:
        raise KeyRecordError(f"the key has {key.key_size} bits", weak=True)
    return key
