"""Names in a Maildir store: which mailbox names are safe as a folder, and how a message's file is called."""

from __future__ import annotations

import re
from typing import Final

from gatepost.core.ids import time_of

# NAME_MAX of Linux's file systems, in bytes.
MAX_NAME: Final = 255
_UNSAFE: Final = re.compile(r"[/\x00-\x1f\x7f]")


def mailbox_fault(mailbox: str) -> str:
    """Return why a mailbox name cannot be a folder's name below the store, or "" when it can.

    A leading dot would allow "." and ".." and would meet the store's own folders.
    """
    if not mailbox or mailbox.startswith("."):
        return "the mailbox name is empty or begins with a dot"
    if _UNSAFE.search(mailbox) is not None:
        return "the mailbox name has a slash or a control character"
    try:
        size = len(mailbox.encode("utf-8"))
    except UnicodeEncodeError:
        return "the mailbox name is not valid UTF-8"
    return "the mailbox name is too long" if size > MAX_NAME else ""


def host_part(hostname: str) -> str:
    """Return a host name as Maildir file names carry it: "/" and ":" as octal escapes, at most 64 characters."""
    safe = "".join(character for character in hostname if character.isascii() and character.isprintable())
    return safe.replace("/", r"\057").replace(":", r"\072").replace(",", r"\054")[:64] or "localhost"


def file_name(message_id: str, host: str, size: int) -> str:
    """Return `<seconds>.G<id>.<host>,S=<size>`: unique by the id, and the same whenever it is made.

    "S=" is Maildir++'s size, which spares a reader the stat.
    """
    return f"{time_of(message_id) // 1000}.G{message_id}.{host},S={size}"
