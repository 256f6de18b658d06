"""What compile must know of the Settings."""

from __future__ import annotations

import msgspec

from gatepost.core.manifest.relay_policy import Mechanism
from gatepost.core.manifest.settings import Role


class Surroundings(msgspec.Struct, frozen=True):
    """What compile must know of the Settings: names that objects refer to, and who may own what.

    An empty `domain_ownership` lets only `release_namespace` hold objects, unless `any_namespace`.
    """

    listeners: dict[str, Role] = {}
    directories: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    release_namespace: str = "default"
    domain_ownership: dict[str, tuple[str, ...]] = {}
    any_namespace: bool = False
    mechanisms: dict[str, tuple[Mechanism, ...]] = {}
    """By which of them each directory can check a login; PLAIN and LOGIN without a word."""
