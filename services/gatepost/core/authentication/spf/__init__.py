"""SPF: whether a client may send for a domain (RFC 7208)."""

from __future__ import annotations

from gatepost.core.authentication.spf.evaluate import check_helo, check_mail_from
from gatepost.core.authentication.spf.result import SpfIdentity, SpfResult, SpfStatus

__all__ = ["SpfIdentity", "SpfResult", "SpfStatus", "check_helo", "check_mail_from"]
