"""ARC: the chain of seals of those who passed a message on, validated and extended (RFC 8617)."""

from __future__ import annotations

from gatepost.core.authentication.arc.result import ArcResult, ArcStatus
from gatepost.core.authentication.arc.seal import ArcSealer
from gatepost.core.authentication.arc.verify import ArcVerification

__all__ = ["ArcResult", "ArcSealer", "ArcStatus", "ArcVerification"]
