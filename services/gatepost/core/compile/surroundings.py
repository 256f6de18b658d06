"""Settings -> what compile must know of them; the command line and the operator both ask here."""

from __future__ import annotations

from gatepost.core.compile.everything import Surroundings
from gatepost.core.manifest.relay_policy import Mechanism
from gatepost.core.manifest.settings import DirectorySettings, Settings


def surroundings(settings: Settings, *, any_namespace: bool) -> Surroundings:
    """What compile must know of the Settings. Standalone, a namespace in a file means nothing."""
    return Surroundings(
        listeners={listener.name: listener.role for listener in settings.listeners},
        directories=tuple(settings.directories),
        stores=tuple(settings.stores),
        release_namespace=settings.release_namespace,
        domain_ownership=settings.domain_ownership,
        any_namespace=any_namespace,
        mechanisms={name: mechanisms_of(directory) for name, directory in settings.directories.items()},
    )


def mechanisms_of(directory: DirectorySettings) -> tuple[Mechanism, ...]:
    """By which mechanisms of AUTH a directory can check a login; of an LDIF file any, as its values are."""
    passwords = (Mechanism.PLAIN, Mechanism.LOGIN)
    if directory.password_program is not None:
        return passwords
    if directory.ldap is None:
        return (*passwords, Mechanism.CRAM_MD5, Mechanism.SCRAM_SHA_256)
    attributes = directory.ldap.attributes
    clear = (Mechanism.CRAM_MD5,) if attributes.clear_password else ()
    scram = (Mechanism.SCRAM_SHA_256,) if attributes.scram_verifier or attributes.clear_password else ()
    return (*passwords, *clear, *scram)
