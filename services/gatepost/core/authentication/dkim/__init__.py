"""DKIM: signatures of a message verified and made (RFC 6376, 8301, 8463, 8616)."""

from __future__ import annotations

from gatepost.core.authentication.dkim.acceptance import Acceptance
from gatepost.core.authentication.dkim.body_hash import BodyHash, BodyHasher, BodyHashes, hash_body
from gatepost.core.authentication.dkim.result import DkimSignatureResult, DkimStatus
from gatepost.core.authentication.dkim.sign import DkimSigner, FieldPolicy, SigningError
from gatepost.core.authentication.dkim.verify import DkimVerification

__all__ = [
    "Acceptance",
    "BodyHash",
    "BodyHasher",
    "BodyHashes",
    "DkimSignatureResult",
    "DkimSigner",
    "DkimStatus",
    "DkimVerification",
    "FieldPolicy",
    "SigningError",
    "hash_body",
]
