"""Policies -> layers: what each listener enforces, what stands beside it, and what domains lay over both.

Each target, a listener or a domain, has one policy that is enforced and at most one beside it (a Shadow, or a
canary with a rollout below 100 percent). The oldest wins; a younger one is Conflicted. A policy that names its
targets is in force for all of them or for none; one that selects domains leaves those out that have an older one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gatepost.core.compile.book import Book, TargetState, by_age
from gatepost.core.compile.conditions import ACCEPTED, RESOLVED_REFS, Condition, Rejection, Status
from gatepost.core.compile.ground import Surroundings
from gatepost.core.compile.policy import compile_policy, default_policy
from gatepost.core.configuration import Beside, DomainConfig, ListenerPolicy
from gatepost.core.configuration_layers import Overlay
from gatepost.core.layers import laid_over
from gatepost.core.manifest import mail_domain, relay_policy
from gatepost.core.manifest.object import ObjectKey
from gatepost.core.manifest.policy_layers import (
    DomainSelection,
    Exemption,
    ListenersTarget,
    MailDomainsTarget,
    Mode,
)
from gatepost.core.manifest.relay_policy import RelayPolicy, RelayPolicySpec
from gatepost.core.manifest.settings import Role
from gatepost.core.policy_merging import Document, domain_parts, merge, not_for_domains

_IN_FORCE: Final = Condition(ACCEPTED, Status.TRUE, "Accepted", "in force")


class KnownDomain(msgspec.Struct, frozen=True):
    """A MailDomain that is in force, with its object's labels."""

    config: DomainConfig
    labels: dict[str, str]


class Base(msgspec.Struct, frozen=True):
    """A policy of a listener, and what was written for it; None: the defaults of the role."""

    policy: ListenerPolicy
    spec: RelayPolicySpec | None


class Layers(msgspec.Struct, frozen=True):
    listeners: tuple[ListenerPolicy, ...]
    beside: tuple[Beside, ...]
    overlays: tuple[Overlay, ...]


def key_of(manifest: RelayPolicy) -> ObjectKey:
    return ObjectKey(relay_policy.KIND, manifest.metadata.namespace, manifest.metadata.name)


def stands_beside(spec: RelayPolicySpec) -> bool:
    """Whether a policy is a Shadow or a canary, so that another one is enforced."""
    return spec.mode is Mode.SHADOW or percent_of(spec) < 100


def percent_of(spec: RelayPolicySpec) -> int:
    return 100 if spec.rollout is None else spec.rollout.percent


def compile_layers(
    policies: Sequence[RelayPolicy], around: Surroundings, domains: Mapping[ObjectKey, KnownDomain], book: Book
) -> Layers:
    """Compile all policies. Never raises for what a user wrote: each fault is a condition of its object."""
    for_listeners, for_domains = _ListenerLayers(around), []
    for manifest in by_age(policies):
        key = key_of(manifest)
        try:
            book.check_duplicate(key)
            _check_rollout(manifest.spec)
            if isinstance(manifest.spec.target, MailDomainsTarget):
                for_domains.append(manifest)
                continue
            warnings = for_listeners.add(manifest, manifest.spec.target)
        except Rejection as rejection:
            _refuse(book, key, manifest, rejection)
            continue
        book.accept(key, manifest.metadata.generation, warnings)
        book.targets[key] = tuple(
            TargetState("Listener", name, _IN_FORCE) for name in manifest.spec.target.listeners
        )
    overlays = _DomainLayers(around, domains, for_listeners.bases())
    for manifest in for_domains:
        key = key_of(manifest)
        try:
            book.check_duplicate(key)
            warnings, states = overlays.add(manifest)
        except Rejection as rejection:
            _refuse(book, key, manifest, rejection)
            continue
        book.accept(key, manifest.metadata.generation, warnings)
        book.targets[key] = states
    return Layers(
        tuple(base.policy for base in for_listeners.enforced.values()),
        tuple(for_listeners.beside.values()),
        tuple(overlays.made),
    )


def _refuse(book: Book, key: ObjectKey, manifest: RelayPolicy, rejection: Rejection) -> None:
    bad, target = book.reject(key, rejection), manifest.spec.target
    if isinstance(target, ListenersTarget):
        book.targets[key] = tuple(TargetState("Listener", name, bad) for name in target.listeners)
    else:
        names = target.mail_domains.names or ()
        book.targets[key] = tuple(TargetState("MailDomain", name, bad) for name in names)


def _check_rollout(spec: RelayPolicySpec) -> None:
    if spec.mode is Mode.SHADOW and spec.rollout is not None:
        raise Rejection(ACCEPTED, "Invalid", "spec.rollout", "a Shadow acts on nobody, so it has no rollout")


class _ListenerLayers:
    """What each listener enforces, by default what its role says, and what stands beside it."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.beside: dict[str, Beside] = {}
        self._given: dict[str, Base] = {}
        self._specs: dict[str, RelayPolicySpec] = {}

    @property
    def enforced(self) -> dict[str, Base]:
        around = self._around
        return self._given | {
            name: Base(default_policy(name, role, around.directories), None)
            for name, role in around.listeners.items()
            if name not in self._given
        }

    def bases(self) -> list[Base]:
        """Every policy of a listener that a domain's can lie over."""
        beside = [Base(b.policy, self._specs[name]) for name, b in self.beside.items()]
        return [*self.enforced.values(), *beside]

    def add(self, manifest: RelayPolicy, target: ListenersTarget) -> list[str]:
        """Put a policy in force for all of its listeners; return the warnings. Raises Rejection."""
        around, spec = self._around, manifest.spec
        if not around.any_namespace and manifest.metadata.namespace != around.release_namespace:
            raise Rejection(
                ACCEPTED,
                "NotAllowed",
                "metadata.namespace",
                f"listener policies belong into the release's namespace {around.release_namespace!r}",
            )
        if spec.exemptions is not None:
            raise Rejection(
                ACCEPTED, "Invalid", "spec.exemptions", "only domains' policies have any; see allowExemptions"
            )
        compiled: dict[str, ListenerPolicy] = {}
        warnings: list[str] = []
        for name in target.listeners:
            self._check(name, beside=stands_beside(spec))
            compiled[name], more = compile_policy(
                manifest, name, around.listeners[name], around.directories, around.mechanisms
            )
            warnings.extend(more)
        for name, policy in compiled.items():
            if stands_beside(spec):
                shadow = spec.mode is Mode.SHADOW
                self.beside[name] = Beside(policy, shadow, 0 if shadow else percent_of(spec))
                self._specs[name] = spec
            else:
                self._given[name] = Base(policy, spec)
        return warnings

    def _check(self, name: str, *, beside: bool) -> None:
        field = "spec.target.listeners"
        if name not in self._around.listeners:
            known = ", ".join(sorted(self._around.listeners)) or "none"
            raise Rejection(RESOLVED_REFS, "ListenerNotFound", field, f"no listener {name!r}; there are: {known}")
        if not beside and name in self._given:
            older = self._given[name].policy.origin
            raise Rejection(ACCEPTED, "Conflicted", field, f"{older} is older and has {name!r}")
        if beside and name in self.beside:
            older = self.beside[name].policy.origin
            raise Rejection(
                ACCEPTED, "Conflicted", field, f"{older} is older and stands beside the one of {name!r}"
            )


class _DomainLayers:
    """What domains lay over each policy of a listener."""

    def __init__(
        self, around: Surroundings, domains: Mapping[ObjectKey, KnownDomain], bases: Sequence[Base]
    ) -> None:
        self._around, self._domains, self._bases = around, domains, bases
        self.made: list[Overlay] = []
        self._owner: dict[tuple[ObjectKey, bool], ObjectKey] = {}

    def add(self, manifest: RelayPolicy) -> tuple[list[str], tuple[TargetState, ...]]:
        """Lay a policy over all listeners' for its domains; return warnings and states. Raises Rejection."""
        key, spec = key_of(manifest), manifest.spec
        assert isinstance(spec.target, MailDomainsTarget)
        field = not_for_domains(spec)
        if field:
            raise Rejection(
                ACCEPTED,
                "NotAllowed",
                f"spec.{field}",
                "is the listener's alone; what a domain may set stands in docs/merge-table.md",
            )
        _, warnings = _compile(manifest, {}, "", self._around)
        beside = stands_beside(spec)
        chosen, states = self._choose(manifest, spec.target.mail_domains, beside)
        if not states:
            warnings.append("spec.target.mailDomains.selector selects no MailDomain of this namespace")
        overlays = self._overlays(
            manifest, tuple(sorted(known.config.domain for known in chosen.values())), warnings
        )
        self.made.extend(overlays)
        self._owner.update({(domain, beside): key for domain in chosen})
        return warnings, states

    def _choose(
        self, manifest: RelayPolicy, wanted: DomainSelection, beside: bool
    ) -> tuple[dict[ObjectKey, KnownDomain], tuple[TargetState, ...]]:
        """The domains that the policy is in force for, and the state of each that it is about."""
        found = _selected(manifest.metadata.namespace, wanted, self._domains)
        chosen, states = {}, []
        for key, known in found.items():
            older = self._owner.get((key, beside))
            condition = _IN_FORCE
            if older is None:
                chosen[key] = known
            else:
                conflict = Rejection(
                    ACCEPTED, "Conflicted", "spec.target.mailDomains", f"{older} is older and has {key.name!r}"
                )
                if wanted.names is not None or len(found) == 1:
                    raise conflict
                condition = Condition(ACCEPTED, Status.FALSE, conflict.reason, str(conflict))
            states.append(TargetState("MailDomain", key.name, condition))
        return chosen, tuple(states)

    def _overlays(self, manifest: RelayPolicy, domains: tuple[str, ...], warnings: list[str]) -> list[Overlay]:
        made: list[Overlay] = []
        counted: frozenset[Exemption] = frozenset()
        for base in self._bases if domains else ():
            overlay = compile_overlay(manifest, domains, base, self._around)
            counted |= set(overlay.exempt)
            if overlay.exempt or laid_over(base.policy, overlay) != base.policy:
                made.append(overlay)
        nowhere = sorted(one.value for one in set(manifest.spec.exemptions or ()) - counted)
        if nowhere and domains:
            warnings.append(f"exemptions {', '.join(nowhere)}: no listener's policy has them in allowExemptions")
        return made


def compile_overlay(manifest: RelayPolicy, domains: tuple[str, ...], base: Base, around: Surroundings) -> Overlay:
    """Lay a domain policy over one of a listener. Raises Rejection."""
    allowed = frozenset(base.spec.allow_exemptions or ()) if base.spec is not None else frozenset()
    exempt = allowed & set(manifest.spec.exemptions or ())
    parts = domain_parts(base.spec, exempt) if base.spec is not None else {}
    merged, _ = _compile(manifest, parts, base.policy.listener, around)
    return Overlay(
        listener=base.policy.listener,
        over=base.policy.origin,
        domains=domains,
        origin=str(key_of(manifest)),
        generation=manifest.metadata.generation,
        shadow=manifest.spec.mode is Mode.SHADOW,
        percent=percent_of(manifest.spec),
        exempt=tuple(sorted(exempt, key=lambda one: one.value)),
        message_size=merged.message_size,
        greylist=merged.greylist,
        authentication=merged.authentication,
        spam_traps=merged.spam_traps,
        content=merged.content,
    )


def _compile(
    manifest: RelayPolicy, below: Document, listener: str, around: Surroundings
) -> tuple[ListenerPolicy, list[str]]:
    """Compile the domain's policy over parts of a listener's. Raises Rejection.

    As if for role MX, which has no defaults of its own: what a layer has values of is the same for every role.
    """
    document = {"target": {"type": "Listeners", "listeners": [listener or "-"]}, **merge(below, manifest.spec)}
    try:
        spec = msgspec.convert(document, RelayPolicySpec)
    except msgspec.ValidationError as error:
        raise Rejection(ACCEPTED, "Invalid", "spec", f"with the listener's policy: {error}") from None
    whole = msgspec.structs.replace(manifest, spec=spec)
    return compile_policy(whole, listener, Role.MX, around.directories, around.mechanisms)


def _selected(
    namespace: str, wanted: DomainSelection, domains: Mapping[ObjectKey, KnownDomain]
) -> dict[ObjectKey, KnownDomain]:
    """The MailDomains of a namespace that a policy is about. Raises Rejection."""
    field = "spec.target.mailDomains"
    if (wanted.names is None) == (wanted.selector is None):
        raise Rejection(ACCEPTED, "Invalid", field, "exactly one of names and selector is expected")
    if wanted.selector is not None:
        labels = wanted.selector.match_labels.items()
        return {
            key: known
            for key, known in domains.items()
            if key.namespace == namespace and labels <= known.labels.items()
        }
    found = {}
    for name in wanted.names or ():
        key = ObjectKey(mail_domain.KIND, namespace, name)
        if key not in domains:
            text = f"no MailDomain {name!r} is in force in namespace {namespace!r}"
            raise Rejection(RESOLVED_REFS, "MailDomainNotFound", f"{field}.names", text)
        found[key] = domains[key]
    return found
