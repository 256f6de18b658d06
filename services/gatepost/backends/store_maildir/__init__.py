"""Mailboxes as Maildirs on an own volume, each message exactly once (docs/guarantees.md).

A batch of deliveries takes three steps, each durable before the next begins:

1. stage: every message is written to `.staging/<id>`; then one sync.
2. record: the ids are appended to the ledger in `.ledger/`; then one sync.
3. publish: every staged file is renamed into its mailbox's `new/`; then one sync. Only now it is STORED.

What a repeated id finds after a crash at any instant: not in the ledger, so nothing was published: it is staged
anew. In the ledger and still staged: only the rename is missing. In the ledger and not staged: it was published,
and a reader may have moved or deleted it since; nothing is written. This needs a rename that is atomic across a
crash, which every journaling file system has.

Bytes are kept as they were received, with CRLF line ends, so that a message's SHA-256 stays what it was; Dovecot
and other readers of Maildirs take both kinds of line ends.
"""

from __future__ import annotations

from gatepost.backends.store_maildir.engine import StoreOwned
from gatepost.backends.store_maildir.store import MaildirStore

__all__ = ["MaildirStore", "StoreOwned"]
