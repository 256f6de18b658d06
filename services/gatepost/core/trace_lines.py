"""The header lines that final delivery writes in front of a message (RFC 5321 4.4)."""

from __future__ import annotations

from gatepost.core.envelope import Envelope


def delivery_lines(envelope: Envelope) -> bytes:
    """Return-Path with the reverse-path, Delivered-To with the recipient, then what was added before."""
    recipient = envelope.recipients[0]
    lines = f"Return-Path: <{envelope.reverse_path}>\r\nDelivered-To: {recipient.address}\r\n{envelope.prepend}"
    return lines.encode("utf-8", "surrogateescape")
