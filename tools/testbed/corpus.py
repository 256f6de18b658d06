"""The 548 sample messages of tests/data/messages as an SMTP client sends them, and how to compare what arrived."""

from __future__ import annotations

import hashlib
import re
import tarfile
from pathlib import Path

MESSAGES = Path(__file__).resolve().parent.parent.parent / "tests/data/messages"


def sample_messages() -> list[bytes]:
    """All of them, without mbox lines, every line end CR LF."""
    files = [path.read_bytes() for path in sorted((MESSAGES / "cpython").glob("msg_*.txt"))]
    with tarfile.open(MESSAGES / "spamassassin-easy-ham-1-500.tar.gz") as archive:
        members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
        files += [archive.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    messages = [_as_sent(data) for data in files]
    assert len(messages) == 548
    return messages


def _as_sent(data: bytes) -> bytes:
    data = re.sub(rb"\AFrom [^\n]*\n", b"", data)
    data = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def below_added(stored: bytes) -> str:
    """The digest of what lies below the header lines that we add: Return-Path, Delivered-To, Received."""
    match = re.match(
        rb"Return-Path: [^\r]*\r\nDelivered-To: [^\r]*\r\nReceived: [^\r]*\r\n(?:[ \t][^\r]*\r\n)*", stored
    )
    assert match is not None, stored[:300]
    return digest(stored[match.end() :])
