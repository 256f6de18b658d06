"""Layers at work: a domain's policy counts for its recipients, and one message has one policy for its content.

One reply is for all recipients of a message, so those whose domains judge content differently cannot share it. The
first one that is taken decides; the client sends to the others again by itself (RFC 5321 4.5.3.1.10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.core.layers import Layer
from gatepost.core.reply import Reply
from gatepost.core.smtp_replies import OTHER_CONTENT_POLICY, RECIPIENT_TOO_LARGE

if TYPE_CHECKING:
    from gatepost.edge.transaction import Transaction


def refusal(transaction: Transaction, layer: Layer) -> Reply | None:
    """Why a recipient under this layer cannot be one of the message; None when it can."""
    if transaction.mail.size > layer.policy.message_size:
        return RECIPIENT_TOO_LARGE
    return None if transaction.shares(layer) else OTHER_CONTENT_POLICY


def taken(transaction: Transaction, layer: Layer) -> None:
    """A recipient under this layer is one of the message."""
    if transaction.layer is None:
        transaction.layer = layer
    transaction.size_limit = min(transaction.size_limit, layer.policy.message_size)
