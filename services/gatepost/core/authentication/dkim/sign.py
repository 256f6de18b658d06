"""Signing with DKIM: which fields, and the DKIM-Signature over a body that was hashed as it streamed.

    signer = DkimSigner("example.org", "s1", pem)
    hasher = BodyHasher({signer.wanted}); hasher.update(chunk) ...
    field = signer.sign(read_header(header), hasher.finish(), now)    # put in front of the message

Sources: RFC 6376 3.5, 5 (signer actions), 5.4.1 (fields to sign), 8.15 (fields added later); RFC 8301 3.2;
RFC 8463 3.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gatepost.core.authentication.dkim.acceptance import MAX_RSA_BITS
from gatepost.core.authentication.dkim.body_hash import BodyHash, BodyHashes
from gatepost.core.authentication.dkim.canonical_header import Canonical, CanonicalHeader, canonical_signature
from gatepost.core.authentication.names import dns_name, full_name, is_below
from gatepost.core.headers import Field, field_of

MIN_RSA_BITS: Final = 1024  # RFC 8301 3.2: signers must not use less (and should use 2048)

# Signed wherever they are, and once more than they are, so that one added later breaks the signature: these are
# shown to a reader or decide how the body is read (RFC 6376 8.15).
OVERSIGNED: Final = ("from", "to", "cc", "subject", "date", "reply-to", "content-type", "mime-version")
# Signed where they are; lists and forwarders add some of them rightly (RFC 6376 5.4.1).
SIGNED: Final = (
    "sender",
    "message-id",
    "in-reply-to",
    "references",
    "content-transfer-encoding",
    "content-disposition",
    "content-id",
    "resent-date",
    "resent-from",
    "resent-to",
    "resent-cc",
    "list-id",
    "list-help",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-subscribe",
    "list-post",
    "list-owner",
    "list-archive",
)
_WIDTH: Final = 76  # lines of the field; RFC 5322 2.1.1 asks for 78


class SigningError(ValueError):
    """The key, the name or the message cannot be signed with; the message says why and holds nothing of the key."""


class FieldPolicy(msgspec.Struct, frozen=True):
    """Names in lower case. From is always signed and over-signed, whatever stands here (RFC 6376 5.4)."""

    oversigned: tuple[str, ...] = OVERSIGNED
    signed: tuple[str, ...] = SIGNED


class SigningKey:
    """A private key with its algorithm. It never shows itself, not in repr either."""

    def __init__(self, pem: bytes) -> None:
        """Raises SigningError: no PEM key, one with a passphrase, another kind, or a length out of bounds."""
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise SigningError("the key is not a private key in PEM without a passphrase") from None
        if isinstance(key, RSAPrivateKey):
            if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
                raise SigningError(f"the RSA key has {key.key_size} bits, not {MIN_RSA_BITS} to {MAX_RSA_BITS}")
        elif not isinstance(key, Ed25519PrivateKey):
            raise SigningError("the key is neither RSA nor Ed25519")
        self._key: RSAPrivateKey | Ed25519PrivateKey = key

    @property
    def algorithm(self) -> str:
        return "rsa-sha256" if isinstance(self._key, RSAPrivateKey) else "ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        if isinstance(self._key, RSAPrivateKey):
            return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        digest = hashes.Hash(hashes.SHA256())
        digest.update(data)
        return self._key.sign(digest.finalize())


class DkimSigner:
    """Signs for one domain with one key; relaxed/relaxed, the whole body."""

    wanted: Final = BodyHash(Canonical.RELAXED)

    def __init__(
        self, domain: str, selector: str, pem: bytes, *, policy: FieldPolicy | None = None, identity: str = ""
    ) -> None:
        """`identity`: i=, an address or "@domain" at or below the domain. Raises SigningError."""
        self._domain, self._selector = key_place(domain, selector)
        self._key = SigningKey(pem)
        self._policy = policy or FieldPolicy()
        self._identity = _checked_identity(identity, self._domain)

    def sign(self, fields: tuple[Field, ...], bodies: BodyHashes, now: int, lifetime: int = 0) -> bytes:
        """Return the DKIM-Signature field with its CR LF. `lifetime` in seconds gives x=; 0: it does not expire.

        Raises SigningError for a message without From (RFC 6376 5.4).
        """
        names = fields_to_sign(fields, self._policy)
        tags = {
            "v": "1",
            "a": self._key.algorithm,
            "c": "relaxed/relaxed",
            "d": self._domain,
            "s": self._selector,
            "t": str(now),
        }
        if lifetime:
            tags["x"] = str(now + lifetime)
        if self._identity:
            tags["i"] = self._identity
        tags["h"] = ":".join(names)
        tags["bh"] = in_base64(bodies.get(self.wanted).digest)
        tags["b"] = ""
        empty = field_of(write_tags("DKIM-Signature", tags))
        data = CanonicalHeader(fields).signed(names, Canonical.RELAXED)
        data += canonical_signature(empty, Canonical.RELAXED)
        return write_tags("DKIM-Signature", {**tags, "b": in_base64(self._key.sign(data))})


def fields_to_sign(fields: tuple[Field, ...], policy: FieldPolicy) -> list[str]:
    """Return the names for h=: each as often as it is there, over-signed ones once more. Raises SigningError."""
    present: dict[str, int] = {}
    for field in fields:
        name = field.name.decode("ascii")
        present[name] = present.get(name, 0) + 1
    if "from" not in present:
        raise SigningError("the message has no From field")
    over = tuple(dict.fromkeys(("from", *policy.oversigned)))
    names = [name for name in over for _ in range(present.get(name, 0) + 1)]
    once = (name for name in dict.fromkeys(policy.signed) if name not in over)
    return names + [name for name in once for _ in range(present.get(name, 0))]


def key_place(domain: str, selector: str) -> tuple[str, str]:
    """Return d= and s= in A-labels. Raises SigningError."""
    name, label = full_name(domain), dns_name(selector)
    if name is None or label is None or dns_name(f"{label}._domainkey.{name}") is None:
        raise SigningError("the domain and the selector are no name of the DNS")
    return name, label


def in_base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def write_tags(name: str, tags: dict[str, str], base64_width: int = _WIDTH - 1) -> bytes:
    """Return a field of tags, folded between tags, after the colons of h= and within b=, with its CR LF."""
    lines = [f"{name}:"]
    for tag, value in tags.items():
        for at, piece in enumerate(_pieces(tag, f"{tag}={value};", base64_width)):
            glue = " " if at == 0 else ""
            # Folds in h= are signed, and the length of b= must not move them: both begin a line.
            fits = len(lines[-1]) + len(glue) + len(piece) <= _WIDTH and (at > 0 or tag not in ("b", "h"))
            if fits:
                lines[-1] += glue + piece
            else:
                # With a space, not a tab: a verifier in wide use looks for " i=1;" in the raw field.
                lines.append(" " + piece)
    return ("\r\n".join(lines).removesuffix(";") + "\r\n").encode("ascii")


def _pieces(tag: str, text: str, base64_width: int) -> list[str]:
    """Where a tag may be folded."""
    if tag == "b":
        return [text[at : at + base64_width] for at in range(0, len(text), base64_width)]
    return text.replace(":", ":\n").split("\n") if tag == "h" else [text]


def _checked_identity(identity: str, domain: str) -> str:
    if not identity:
        return ""
    local, at, name = identity.rpartition("@")
    host = dns_name(name) if at else None
    plain_local = all(character.isascii() and (character.isalnum() or character in "._+-") for character in local)
    if host is None or not is_below(host, domain) or not plain_local:
        raise SigningError("the identity is no address at or below the domain")
    return f"{local}@{host}"
