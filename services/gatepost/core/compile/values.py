"""Values that many fields of a manifest have, checked in one way: a fault is a Rejection that names the field."""

from __future__ import annotations

from collections.abc import Callable

from gatepost.core.compile.conditions import ACCEPTED, Rejection
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.quantities import seconds
from gatepost.core.networks import parse_network


def read_seconds(text: str, field: str) -> float:
    """Return a duration's seconds. Raises Rejection for units out of order, which the type's pattern lets pass."""
    try:
        return seconds(text)
    except ValueError as error:
        raise Rejection(ACCEPTED, "Invalid", field, str(error)) from None


def duration(text: str, field: str, least: float, most: float) -> float:
    """Return a duration's seconds. Raises Rejection when it is not within the bounds."""
    value = read_seconds(text, field)
    if not least <= value <= most:
        raise Rejection(ACCEPTED, "Invalid", field, f"from {least:g}s to {most:g}s")
    return value


def judging(action: Action | None, field: str) -> Action | None:
    """Return a check's action. Raises Rejection for Relay: what is found out about mail gives nobody that right."""
    if action is Action.RELAY:
        raise Rejection(ACCEPTED, "Invalid", field, "Relay is not for this check")
    return action


def checked(texts: tuple[str, ...] | None, parse: Callable[[str], object], field: str) -> tuple[str, ...]:
    """Return the texts as they are written. Raises Rejection for one that `parse` refuses by a ValueError."""
    for text in texts or ():
        try:
            parse(text)
        except ValueError as error:
            raise Rejection(ACCEPTED, "Invalid", field, str(error)) from None
    return texts or ()


def checked_networks(texts: tuple[str, ...] | None, field: str) -> tuple[str, ...]:
    """Return the networks as they are written. Raises Rejection for one that is none."""
    return checked(texts, parse_network, field)
