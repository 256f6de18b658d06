"""What lies in the mailboxes of a system: counted, and read back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class Maildirs:
    """The new/ of each user's Maildir; `folders` by user."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = {user: folder / "new" for user, folder in folders.items()}

    def count(self) -> int:
        return sum(len(os.listdir(folder)) for folder in self._folders.values() if folder.exists())

    def holds(self, user: str, end: bytes) -> bool:
        """Whether a message of the user ends in these bytes: servers write in front only. CRLF counts as LF."""
        folder = self._folders[user]
        return folder.exists() and any(
            file.read_bytes().replace(b"\r\n", b"\n").endswith(end.replace(b"\r\n", b"\n"))
            for file in folder.iterdir()
        )
