"""`gatepost explain`: the policies of each listener and domain, every value with where it comes from.

The origin is found by trying: what changes in the compiled policy when a field of the object is left out is that
field's doing. So no list has to be kept beside the types, and a new field explains itself.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from gatepost.backends.config_dir import SETTINGS_FILE, compile_directory, manifest_files
from gatepost.backends.settings_file import load_settings
from gatepost.core.compile import Compiled
from gatepost.core.compile.conditions import Rejection
from gatepost.core.compile.domain import compile_domain
from gatepost.core.compile.ground import Surroundings
from gatepost.core.compile.layers import Base, compile_overlay
from gatepost.core.compile.policy import compile_policy
from gatepost.core.compile.surroundings import surroundings
from gatepost.core.configuration import DomainConfig, ListenerPolicy
from gatepost.core.configuration_layers import Overlay
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest.documents import read_object
from gatepost.core.manifest.mail_domain import MailDomain
from gatepost.core.manifest.object import ObjectKey
from gatepost.core.manifest.read import ManifestError, load_yaml
from gatepost.core.manifest.relay_policy import RelayPolicy
from gatepost.core.manifest.settings import Settings

_IDENTITY: Final = frozenset({"listener", "origin", "generation", "domain", "over", "domains", "shadow", "percent"})
MOST_SHOWN: Final = 200  # characters of a value on the terminal; json has all of it

Value = Any
Document = dict[str, Any]


class Row(msgspec.Struct, frozen=True):
    """One value. Without `file` and `fields` nobody said anything: `default` names whose default it is."""

    name: str
    value: Value
    default: str = ""
    file: str = ""
    fields: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    """In a layer: what the listener's policy has to do with it, as file and field."""


class Explained(msgspec.Struct, frozen=True):
    kind: str
    name: str
    object: str
    file: str
    rows: tuple[Row, ...]
    same: tuple[str, ...] = ()
    """Fields that are set to what is the default anyway."""
    layer: str = ""
    """Shadow or canary; and what a domain's policy lies over."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--listener", metavar="L", help="only this listener")
    parser.add_argument("--domain", metavar="D", help="only this domain")
    parser.add_argument("--output", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    directory: Path = options.directory
    settings = load_settings(directory / SETTINGS_FILE, None)
    compiled = compile_directory(directory, surroundings(settings, any_namespace=True))
    found = list(_explained(directory, settings, compiled, options))
    if options.output == "json":
        print(json.dumps(msgspec.to_builtins(found), ensure_ascii=False, indent=2))
    else:
        print("\n\n".join(_text(one) for one in found))
    for key, condition in compiled.rejected:
        print(f"not in force: {key}: {condition.reason}: {condition.message}", file=sys.stderr)
    if not found:
        print("there is no such listener or domain", file=sys.stderr)
    return 0 if found and not compiled.rejected else 1


def _explained(
    directory: Path, settings: Settings, compiled: Compiled, options: argparse.Namespace
) -> Iterator[Explained]:
    documents = _documents(directory)
    both = not options.listener and not options.domain
    for policy in compiled.configuration.listeners:
        if both or policy.listener == options.listener:
            yield _listener(policy, settings, documents)
            yield from _beside(policy.listener, compiled, settings, documents)
    wanted = _canonical(options.domain) if options.domain else ""
    for domain in compiled.configuration.domains:
        if both or wanted in (domain.domain, *domain.alias_domains):
            yield _domain(domain, settings, documents)
            yield from _layers(domain.domain, compiled, settings, documents)


def _canonical(text: str) -> str:
    try:
        return canonical_domain(text)
    except DomainError as error:
        raise ManifestError("--domain", "", str(error)) from None


def _documents(directory: Path) -> dict[str, tuple[str, Document]]:
    """Every object of the folder by its key, with its file."""
    found: dict[str, tuple[str, Document]] = {}
    for file, text in manifest_files(directory).items():
        for document in load_yaml(text, file):
            made = read_object(document, file)
            key = ObjectKey(made.kind, made.metadata.namespace, made.metadata.name)
            found.setdefault(str(key), (file, document))
    return found


def _listener(policy: ListenerPolicy, settings: Settings, documents: dict[str, tuple[str, Document]]) -> Explained:
    role = next(each.role for each in settings.listeners if each.name == policy.listener)
    default = f"default of role {role.value}"
    name = f"{policy.listener} (role {role.value})"
    if not policy.origin:
        return Explained("listener", name, "", "", tuple(_rows(policy, default, "", {})))

    def again(document: Document) -> Value:
        manifest = read_object(document, "")
        assert isinstance(manifest, RelayPolicy)
        mechanisms = surroundings(settings, any_namespace=True).mechanisms
        return compile_policy(manifest, policy.listener, role, tuple(settings.directories), mechanisms)[0]

    return _object("listener", name, policy, default, again, documents[policy.origin])


def _beside(
    listener: str, compiled: Compiled, settings: Settings, documents: dict[str, tuple[str, Document]]
) -> Iterator[Explained]:
    """The Shadow or the canary beside a listener's policy."""
    for beside in compiled.configuration.beside:
        if beside.policy.listener == listener:
            layer = _mode(beside.shadow, beside.percent)
            yield msgspec.structs.replace(_listener(beside.policy, settings, documents), layer=layer)


def _mode(shadow: bool, percent: int) -> str:
    if shadow:
        return "Shadow: decides and records, never acts"
    return f"canary: {percent} % of the clients" if percent < 100 else ""


def _layers(
    domain: str, compiled: Compiled, settings: Settings, documents: dict[str, tuple[str, Document]]
) -> Iterator[Explained]:
    """What domains' policies lay over listeners' for recipients of a domain."""
    around = surroundings(settings, any_namespace=True)
    for overlay in compiled.configuration.overlays:
        if domain in overlay.domains:
            yield _layer(domain, overlay, around, documents)


def _layer(
    domain: str, overlay: Overlay, around: Surroundings, documents: dict[str, tuple[str, Document]]
) -> Explained:
    file, above = documents[overlay.origin]
    below_file, below = documents.get(overlay.over, ("", None))

    def again(below: Document | None, above: Document) -> Value:
        manifest = read_object(above, "")
        listener = None if below is None else read_object(below, "")
        assert isinstance(manifest, RelayPolicy)
        assert listener is None or isinstance(listener, RelayPolicy)
        base = Base(ListenerPolicy(overlay.listener, overlay.over), None if listener is None else listener.spec)
        return compile_overlay(manifest, overlay.domains, base, around)

    name = f"recipients of {domain} at listener {overlay.listener}"
    found = _object("layer", name, overlay, "default", lambda changed: again(below, changed), (file, above))
    over = f"over {overlay.over}" if overlay.over else "over the defaults of the listener"
    layer = "; ".join(filter(None, (over, _mode(overlay.shadow, overlay.percent))))
    if below is None:
        return msgspec.structs.replace(found, layer=layer)
    lower = _object("layer", name, overlay, "default", lambda changed: again(changed, above), (below_file, below))
    fields = {row.name: row.fields for row in lower.rows}
    rows = tuple(
        msgspec.structs.replace(row, also=tuple(f"{below_file}: {field}" for field in fields[row.name]))
        for row in found.rows
    )
    return msgspec.structs.replace(found, rows=rows, layer=layer)


def _domain(config: DomainConfig, settings: Settings, documents: dict[str, tuple[str, Document]]) -> Explained:
    def again(document: Document) -> Value:
        manifest = read_object(document, "")
        assert isinstance(manifest, MailDomain)
        return compile_domain(manifest, tuple(settings.directories), tuple(settings.stores))[0]

    return _object("domain", config.domain, config, "default of a domain", again, documents[config.origin])


def _object(  # the parts of one explanation, each needed once
    kind: str,
    name: str,
    config: ListenerPolicy | DomainConfig | Overlay,
    default: str,
    again: Callable[[Document], Value],
    written: tuple[str, Document],
) -> Explained:
    file, document = written
    causes: dict[str, list[str]] = {}
    same: list[str] = []
    needed: list[tuple[str, ...]] = []
    for path in _leaves(document.get("spec", {}), ("spec",)):
        changed = _effect(config, document, path, again)
        field = ".".join(path)
        if changed == [] and _alone(document, path):  # that the part is there at all may be what counts
            changed = _effect(config, document, path[:-1], again) or changed
        if changed is None:  # without it there would be no such part, or no object
            needed.append(path)
            continue
        if not changed and path not in _NO_VALUE:
            same.append(field)
        for attribute in changed:
            if field not in causes.setdefault(attribute, []):
                causes[attribute].append(field)
    known = frozenset(causes)
    for path in needed:  # what its part decides, and no other field of it
        for attribute in set(_effect(config, document, path[:-1], again) or ()) - known:
            causes.setdefault(attribute, []).append(".".join(path))
    rows = tuple(_rows(config, default, file, causes))
    return Explained(kind, name, config.origin, file, rows, tuple(same))


def _leaves(value: Value, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The fields that are set, but for parts of unions and maps of names, which go as a whole."""
    for key, item in value.items():
        if isinstance(item, dict) and item and "type" not in item and (*path, key) not in _WHOLE:
            yield from _leaves(item, (*path, key))
        else:
            yield (*path, key)


def _alone(document: Document, path: tuple[str, ...]) -> bool:
    """Whether a field is the only one of its part."""
    part = document
    for key in path[:-1]:
        part = part[key]
    return len(path) > 2 and len(part) == 1


# Which layer it is: no value of the compiled policy says that.
_NO_VALUE: Final = frozenset(
    {("spec", "target"), ("spec", "mode"), ("spec", "rollout", "percent"), ("spec", "allowExemptions")}
)
_WHOLE: Final = frozenset({("spec", "recipients", "aliases"), ("spec", "recipients", "roleAddresses")})


def _effect(
    config: Value, document: Document, path: tuple[str, ...], again: Callable[[Document], Value]
) -> list[str] | None:
    """The values that are others without the field, or with another one in its place; None: it is always there."""
    now = _flat(config)
    for other in (None, *_SUBSTITUTES.get(path, ())):
        changed = copy.deepcopy(document)
        target = changed
        for key in path[:-1]:
            target = target[key]
        if other is None:
            del target[path[-1]]
        elif target[path[-1]].get("type") == other["type"]:
            continue
        else:
            target[path[-1]] = other
        try:
            then = _flat(again(changed))
        except (ManifestError, Rejection):
            continue
        return [name for name, value in now.items() if then.get(name, _NOTHING) != value]
    return None


_NOTHING: Final = object()
# What an object cannot be without is compared with something else in its place.
_SUBSTITUTES: Final[dict[tuple[str, ...], tuple[Document, ...]]] = {
    ("spec", "recipients", "source"): ({"type": "Any"}, {"type": "Static", "addresses": ["x"]}),
}


def _flat(value: msgspec.Struct, prefix: str = "") -> dict[str, Value]:
    """Every value by its name, those of parts as `part.name`, with the ones that are defaults."""
    found: dict[str, Value] = {}
    for name in value.__struct_fields__:
        item = getattr(value, name)
        if isinstance(item, msgspec.Struct):
            found.update(_flat(item, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = msgspec.to_builtins(item)
    return found


def _rows(config: msgspec.Struct, default: str, file: str, causes: dict[str, list[str]]) -> Iterator[Row]:
    for name, value in _flat(config).items():
        if name in _IDENTITY:
            continue
        if name in causes:
            yield Row(name, value, file=file, fields=tuple(causes[name]))
        else:
            yield Row(name, value, default=default)


def _text(one: Explained) -> str:
    head = f"{one.kind} {one.name}: " + (
        f"{one.object} in {one.file}" if one.object else "no object, defaults only"
    )
    head += f" ({one.layer})" if one.layer else ""
    width = max((len(row.name) for row in one.rows), default=0)
    lines = [head]
    for row in one.rows:
        shown = json.dumps(row.value, ensure_ascii=False)
        shown = shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}... ({len(shown)} characters)"
        own = (f"{row.file}: {', '.join(row.fields)}",) if row.fields else ()
        origin = "; ".join((*own, *row.also)) or row.default
        lines.append(f"  {row.name:{width}} = {shown}   [{origin}]")
    if one.same:
        lines.append(f"  set to what is the default: {', '.join(one.same)}")
    return "\n".join(lines)
