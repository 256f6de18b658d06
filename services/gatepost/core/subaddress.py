"""Subaddresses: the detail behind the user in a local part (RFC 5233)."""

from __future__ import annotations


def split_subaddress(local: str, separators: tuple[str, ...]) -> tuple[str, str] | None:
    """Split user+detail at the first separator that stands inside (not at the start); None without one.

    RFC 5233 1 names the parts :user and :detail.
    """
    places = [place for separator in separators if (place := local.find(separator, 1)) > 0]
    if not places:
        return None
    place = min(places)
    return local[:place], local[place + 1 :]
