"""What a policy says of a message's content, normalised: each check's part, off where nothing is set."""

from __future__ import annotations

from typing import Final

import msgspec


class ContentPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Judged behind the final dot, for all recipients with the same policy at once."""

    @property
    def is_empty(self) -> bool:
        """Whether no content is looked at."""
        return self == NOTHING


NOTHING: Final = ContentPolicy()
