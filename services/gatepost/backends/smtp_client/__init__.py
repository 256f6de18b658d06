"""Sending by SMTP (RFC 5321) and LMTP (RFC 2033) over connections that are reused.

One thing a file: `replies` and `stuffing` and `commands` are pure; `wire` is the socket with its time limits;
`connection` greets, encrypts and carries one transaction after another; `pool` keeps connections by host;
`transport` is the port.
"""

from __future__ import annotations

from gatepost.backends.smtp_client.limits import Dialect
from gatepost.backends.smtp_client.transport import SmtpTransport

__all__ = ["Dialect", "SmtpTransport"]
