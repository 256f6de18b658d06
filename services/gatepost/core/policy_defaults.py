"""Words with a meaning of their own in policies."""

from __future__ import annotations

from typing import Final

LOCAL: Final = "Local"
"""In senderDomains: every domain that a MailDomain serves."""
