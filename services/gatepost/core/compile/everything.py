"""The whole of compile: which objects count, who wins, and the configuration of those that do.

One bad object is left out and never blocks others. For one domain the oldest object wins (creation time, then
namespace and name); the other is Conflicted. A listener has one policy in force: the oldest wins likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec

from gatepost.core.compile.conditions import ACCEPTED, RESOLVED_REFS, Condition, Rejection, Status
from gatepost.core.compile.domain import compile_domain
from gatepost.core.compile.policy import compile_policy, default_policy
from gatepost.core.configuration import (
    SCHEMA_MAJOR,
    Configuration,
    DomainConfig,
    ListenerPolicy,
    object_label,
)
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest import mail_domain, relay_policy
from gatepost.core.manifest.mail_domain import MailDomain
from gatepost.core.manifest.object import Metadata, ObjectKey
from gatepost.core.manifest.relay_policy import RelayPolicy
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


class Compiled(msgspec.Struct, frozen=True):
    configuration: Configuration
    conditions: dict[ObjectKey, tuple[Condition, ...]]
    warnings: dict[ObjectKey, tuple[str, ...]] = {}

    @property
    def rejected(self) -> tuple[tuple[ObjectKey, Condition], ...]:
        return tuple(
            (key, condition)
            for key, conditions in sorted(self.conditions.items())
            for condition in conditions
            if condition.status is Status.FALSE
        )


class _Manifest(Protocol):
    @property
    def metadata(self) -> Metadata: ...


M = TypeVar("M", bound=_Manifest)


def compile_manifests(
    domains: Sequence[MailDomain], policies: Sequence[RelayPolicy], around: Surroundings
) -> Compiled:
    """Compile all objects. Never raises for what a user wrote: each fault is a condition of its object."""
    book = _Book()
    compiled_domains = _domains(domains, around, book)
    compiled_listeners = _listeners(policies, around, book)
    configuration = Configuration(
        SCHEMA_MAJOR,
        tuple(sorted(compiled_domains, key=lambda domain: domain.domain)),
        tuple(sorted(compiled_listeners, key=lambda listener: listener.listener)),
        dict(sorted(book.objects.items())),
    )
    return Compiled(configuration, book.conditions, book.warnings)


class _Book:
    """Conditions, warnings and the contained objects, as they are found out."""

    def __init__(self) -> None:
        self.conditions: dict[ObjectKey, tuple[Condition, ...]] = {}
        self.warnings: dict[ObjectKey, tuple[str, ...]] = {}
        self.objects: dict[str, int] = {}

    def reject(self, key: ObjectKey, rejection: Rejection) -> None:
        bad = Condition(rejection.condition, Status.FALSE, rejection.reason, str(rejection))
        if rejection.condition == ACCEPTED:
            self.conditions[key] = (bad,)
        else:
            self.conditions[key] = (
                Condition(ACCEPTED, Status.TRUE, "Accepted", "the object is valid"),
                bad,
            )

    def accept(self, key: ObjectKey, generation: int, warnings: Sequence[str]) -> None:
        text = "the object is valid" if not warnings else "valid; " + "; ".join(warnings)
        self.conditions[key] = (
            Condition(ACCEPTED, Status.TRUE, "Accepted" if not warnings else "AcceptedWithWarnings", text),
            Condition(RESOLVED_REFS, Status.TRUE, "ResolvedRefs", "all references were found"),
        )
        if warnings:
            self.warnings[key] = tuple(warnings)
        self.objects[object_label(key)] = generation


def _by_age(objects: Sequence[M]) -> list[M]:
    """Oldest first; those without a creation time (from files) in the order of their names."""
    return sorted(objects, key=lambda o: (o.metadata.creation_timestamp, o.metadata.namespace, o.metadata.name))


def _domains(domains: Sequence[MailDomain], around: Surroundings, book: _Book) -> list[DomainConfig]:
    owner: dict[str, ObjectKey] = {}
    default_owner: ObjectKey | None = None
    result = []
    for manifest in _by_age(domains):
        key = ObjectKey(mail_domain.KIND, manifest.metadata.namespace, manifest.metadata.name)
        try:
            _check_duplicate(key, book)
            config, warnings = compile_domain(manifest, around.directories, around.stores)
            names = (config.domain, *config.alias_domains)
            shown = (config.masquerade.as_domain,) if config.masquerade else ()
            _check_ownership(manifest.metadata.namespace, (*names, *shown), around)
            _check_conflict(names, owner)
            if config.default and default_owner is not None:
                raise Rejection(
                    ACCEPTED, "Conflicted", "spec.default", f"{default_owner} is the default domain already"
                )
        except Rejection as rejection:
            book.reject(key, rejection)
            continue
        default_owner = key if config.default else default_owner
        owner.update(dict.fromkeys(names, key))
        book.accept(key, manifest.metadata.generation, warnings)
        result.append(config)
    return result


def _check_duplicate(key: ObjectKey, book: _Book) -> None:
    if key in book.conditions:
        raise Rejection(ACCEPTED, "Conflicted", "metadata.name", "another object has this kind, namespace and name")


def _check_conflict(names: tuple[str, ...], owner: dict[str, ObjectKey]) -> None:
    for name in names:
        if name in owner:
            raise Rejection(
                ACCEPTED, "Conflicted", "spec.domain", f"{name} belongs to {owner[name]}, which is older"
            )


def _check_ownership(namespace: str, names: tuple[str, ...], around: Surroundings) -> None:
    if around.any_namespace or namespace == around.release_namespace:
        return
    suffixes = []
    for suffix in around.domain_ownership.get(namespace, ()):
        try:
            suffixes.append(canonical_domain(suffix.removeprefix(".")))
        except DomainError:
            continue
    for name in names:
        if not any(name == suffix or name.endswith("." + suffix) for suffix in suffixes):
            raise Rejection(
                ACCEPTED,
                "NotAllowed",
                "metadata.namespace",
                f"namespace {namespace!r} may not own {name}: an administrator of the release must list the "
                "namespace with this suffix in domainOwnership",
            )


def _listeners(policies: Sequence[RelayPolicy], around: Surroundings, book: _Book) -> list[ListenerPolicy]:
    chosen: dict[str, ListenerPolicy] = {}
    for manifest in _by_age(policies):
        key = ObjectKey(relay_policy.KIND, manifest.metadata.namespace, manifest.metadata.name)
        try:
            _check_duplicate(key, book)
            compiled, warnings = _policy(manifest, around, chosen)
        except Rejection as rejection:
            book.reject(key, rejection)
            continue
        chosen.update(compiled)
        book.accept(key, manifest.metadata.generation, warnings)
    for name, role in around.listeners.items():
        if name not in chosen:
            chosen[name] = default_policy(name, role, around.directories)
    return list(chosen.values())


def _policy(
    manifest: RelayPolicy, around: Surroundings, chosen: dict[str, ListenerPolicy]
) -> tuple[dict[str, ListenerPolicy], list[str]]:
    if not around.any_namespace and manifest.metadata.namespace != around.release_namespace:
        raise Rejection(
            ACCEPTED,
            "NotAllowed",
            "metadata.namespace",
            f"listener policies belong into the release's namespace {around.release_namespace!r}",
        )
    compiled: dict[str, ListenerPolicy] = {}
    warnings: list[str] = []
    for name in manifest.spec.target.listeners:
        if name not in around.listeners:
            known = ", ".join(sorted(around.listeners)) or "none"
            raise Rejection(
                RESOLVED_REFS,
                "ListenerNotFound",
                "spec.target.listeners",
                f"no listener {name!r}; there are: {known}",
            )
        if name in chosen:
            raise Rejection(
                ACCEPTED,
                "Conflicted",
                "spec.target.listeners",
                f"{chosen[name].origin} is older and has {name!r}",
            )
        compiled[name], more = compile_policy(manifest, name, around.listeners[name], around.directories)
        warnings.extend(more)
    return compiled, warnings
