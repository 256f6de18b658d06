"""Settings -> what compile must know of them; the command line and the operator both ask here."""

from __future__ import annotations

from gatepost.core.compile.everything import Surroundings
from gatepost.core.manifest.settings import Settings


def surroundings(settings: Settings, *, any_namespace: bool) -> Surroundings:
    """What compile must know of the Settings. Standalone, a namespace in a file means nothing."""
    return Surroundings(
        listeners={listener.name: listener.role for listener in settings.listeners},
        directories=tuple(settings.directories),
        stores=tuple(settings.stores),
        release_namespace=settings.release_namespace,
        domain_ownership=settings.domain_ownership,
        any_namespace=any_namespace,
    )
