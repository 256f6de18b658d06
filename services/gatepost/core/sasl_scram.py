"""SCRAM-SHA-256 (RFC 5802, RFC 7677) as a server, without I/O: messages in, messages out.

    client-first   n,,n=user,r=cnonce                     who, and the client's nonce
    server-first   r=cnonce+snonce,s=salt,i=iterations    challenge()
    client-final   c=biws,r=cnonce+snonce,p=proof         final(): is the proof the password's?
    server-final   v=signature                            shows that we know the verifier

Without channel binding: SCRAM-SHA-256-PLUS is not offered, so a client may say n or y, never p (RFC 5802 6). What
a directory stores is a verifier (RFC 5803), from which nobody can log in. An unknown login gets the same dialogue
with a salt that is always the same for it while this process runs (RFC 5802 9 leaves enumeration to us).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Final

import msgspec

from gatepost.core.sasl import MAX_CREDENTIAL, SaslError
from gatepost.core.sasl_prep import PrepError, saslprep

ITERATIONS: Final = 4096  # RFC 7677 4: at least; what is derived here for one dialogue is never stored
# A verifier with more could keep clients busy for minutes, and a thread of ours where PLAIN is checked against it.
MAX_ITERATIONS: Final = 1_000_000
NONCE_BYTES: Final = 18
SALT_BYTES: Final = 16

_HASH: Final = "sha256"
_DIGEST_BYTES: Final = 32
# gs2-header = gs2-cbind-flag "," [ "a=" authzid ] ","  (RFC 5802 7)
_FIRST: Final = re.compile(
    r"(?P<header>(?P<flag>[ny]|p=[A-Za-z0-9.-]+),(?:a=(?P<authzid>[^,]+))?,)(?P<bare>.*)", re.S
)
_BARE: Final = re.compile(r"n=(?P<login>[^,]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,]*)*", re.S)
_FINAL: Final = re.compile(
    r"(?P<bare>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,]*)*)"
    r",p=(?P<proof>[A-Za-z0-9+/=]+)"
)
# RFC 5803 3 writes SCRAM-SHA-256$i:salt$StoredKey:ServerKey; userPassword has {SCRAM-SHA-256} in front of the same,
# with ":" or, as Dovecot writes it, "," between all four.
_VERIFIER: Final = re.compile(
    r"(?:\{SCRAM-SHA-256\}|SCRAM-SHA-256\$)([1-9][0-9]{0,6})[:,]([A-Za-z0-9+/=]{4,128})[$:,]([A-Za-z0-9+/]{43}=)[:,]"
    r"([A-Za-z0-9+/]{43}=)",
    re.IGNORECASE,
)


class ScramVerifier(msgspec.Struct, frozen=True):
    """What is stored of a password: enough to check a proof, not enough to make one (RFC 5802 3)."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"ScramVerifier({self.iterations})"


def parse_verifier(text: str) -> ScramVerifier | None:
    """Read a stored value (RFC 5803 3, or the same behind {SCRAM-SHA-256}); None when it is none."""
    found = _VERIFIER.fullmatch(text.strip())
    if found is None or int(found[1]) > MAX_ITERATIONS:
        return None
    try:
        salt, stored, server = (base64.b64decode(part, validate=True) for part in found.groups()[1:])
    except (binascii.Error, ValueError):
        return None
    return ScramVerifier(int(found[1]), salt, stored, server)


def derive_verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> ScramVerifier:
    """The verifier of a password (RFC 5802 3). Takes about a millisecond for 4096 iterations. Raises SaslError."""
    try:
        prepared = saslprep(password).encode("utf-8", "surrogateescape")
    except PrepError:
        raise SaslError from None
    salted = hashlib.pbkdf2_hmac(_HASH, prepared, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", _HASH)
    return ScramVerifier(
        iterations, salt, hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", _HASH)
    )


def write_verifier(verifier: ScramVerifier) -> str:
    """The form in which userPassword has it."""
    salt, stored, server = (
        base64.b64encode(part).decode("ascii") for part in (verifier.salt, verifier.stored_key, verifier.server_key)
    )
    return f"{{SCRAM-SHA-256}}{verifier.iterations}:{salt}${stored}:{server}"


def fits(verifier: ScramVerifier, password: str) -> bool:
    """Whether a password is the verifier's. As slow as its iterations."""
    try:
        derived = derive_verifier(password, verifier.salt, verifier.iterations)
    except SaslError:
        return False
    return hmac.compare_digest(derived.stored_key, verifier.stored_key)


def salt_for(login: str, secret: bytes) -> bytes:
    """The salt that a login without a stored one gets: the same at each try, and of no use to guess others by."""
    return hmac.digest(secret, login.lower().encode("utf-8", "surrogateescape"), _HASH)[:SALT_BYTES]


def decoy(login: str, secret: bytes, iterations: int) -> ScramVerifier:
    """A verifier that no proof fits."""
    keys = [hmac.digest(secret, label + login.encode("utf-8", "surrogateescape"), _HASH) for label in (b"1", b"2")]
    return ScramVerifier(iterations, salt_for(login, secret), *keys)


class ScramDialogue:
    """One authentication. `login` is who the client says it is; `authorization` empty: acts as itself."""

    def __init__(self, first: bytes, server_nonce: str) -> None:
        """`first` is the client-first-message. Raises SaslError."""
        found = _FIRST.fullmatch(_text(first))
        # RFC 5802 6: "p" wants channel binding, which only the PLUS form has.
        if found is None or found["flag"].startswith("p"):
            raise SaslError
        bare = _BARE.fullmatch(found["bare"])
        if bare is None:
            raise SaslError  # also for "m=": a mandatory extension that we do not know (RFC 5802 5.1)
        self.login = _name(bare["login"])
        self.authorization = _name(found["authzid"]) if found["authzid"] else ""
        self._header = found["header"]
        self._first_bare = found["bare"]
        self._nonce = bare["nonce"] + server_nonce
        self._server_first = ""
        self._verifier: ScramVerifier | None = None

    def challenge(self, verifier: ScramVerifier) -> bytes:
        """The server-first-message for whoever the login turned out to be."""
        self._verifier = verifier
        salt = base64.b64encode(verifier.salt).decode("ascii")
        self._server_first = f"r={self._nonce},s={salt},i={verifier.iterations}"
        return self._server_first.encode("ascii")

    def final(self, message: bytes) -> bytes | None:
        """The server-final-message, or None when the proof is wrong. Raises SaslError for what is no proof."""
        verifier, found = self._verifier, _FINAL.fullmatch(_text(message))
        if verifier is None or found is None:
            raise SaslError
        binding = base64.b64encode(self._header.encode("utf-8")).decode("ascii")
        if not hmac.compare_digest(found["binding"].encode(), binding.encode()):
            raise SaslError  # RFC 5802 7: somebody on the line has changed the header
        if not hmac.compare_digest(found["nonce"].encode(), self._nonce.encode()):
            raise SaslError  # an old answer
        proof = _base64(found["proof"])
        # RFC 5802 3: AuthMessage := client-first-bare + "," + server-first + "," + client-final-without-proof
        auth_message = f"{self._first_bare},{self._server_first},{found['bare']}".encode()
        client_signature = hmac.digest(verifier.stored_key, auth_message, _HASH)
        if len(proof) != _DIGEST_BYTES:
            raise SaslError
        client_key = bytes(a ^ b for a, b in zip(proof, client_signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key):
            return None
        return b"v=" + base64.b64encode(hmac.digest(verifier.server_key, auth_message, _HASH))


def _text(message: bytes) -> str:
    if len(message) > 4 * MAX_CREDENTIAL:
        raise SaslError
    try:
        text = message.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError from None
    if "\0" in text:
        raise SaslError
    return text


def _name(escaped: str) -> str:
    """saslname (RFC 5802 5.1): "=2C" is a comma, "=3D" an equals sign, any other "=" is an error."""
    if len(escaped) > MAX_CREDENTIAL or re.search("=(?!2C|3D)", escaped):
        raise SaslError
    try:
        return saslprep(escaped.replace("=2C", ",").replace("=3D", "="))
    except PrepError:
        raise SaslError from None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SaslError from None
