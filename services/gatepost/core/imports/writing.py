"""A Plan -> the files of a configuration directory: settings, manifests, access tables, and what is missing."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from gatepost.core.imports.plan import DomainPlan, Plan
from gatepost.core.manifest import mail_domain, relay_policy
from gatepost.core.manifest.object import API_VERSION

DERIVED: Final = "access.derived"
REPORT: Final = "NOT-TRANSLATED.txt"
DIRECTORY: Final = "users"

_NAME = re.compile(r"[^a-z0-9]+")


def write_plan(plan: Plan) -> dict[str, str]:
    """Return name -> text of every file."""
    tables = {f"access.{name}": lines for name, lines in plan.tables.items() if lines}
    if plan.access:
        tables[DERIVED] = [f"# made from the other files of {plan.source}", *plan.access]
    files = {
        "gatepost.yaml": _settings(plan),
        "domains.yaml": _documents([_domain(plan, one) for one in plan.domains.values()]),
        "policies.yaml": _documents([_policy(plan, list(tables))]),
        f"{DIRECTORY}.ldif": "# The users: `gatepost import users FILE` writes them.\nversion: 1\n",
        REPORT: report(plan),
    }
    files.update({name: "\n".join(lines) + "\n" for name, lines in tables.items()})
    return files


def report(plan: Plan) -> str:
    """Each line of the source that has no exact counterpart, with the reason; for people."""
    if not plan.notes:
        return f"Everything of {plan.source} was translated.\n"
    return "".join(
        f"{note.place.file}:{note.place.line}: {note.fate.value}: {note.reason}\n    {note.place.text}\n"
        for note in plan.notes
    )


def _settings(plan: Plan) -> str:
    settings: dict[str, Any] = {
        "hostname": plan.hostname or f"mx.{plan.primary or 'example.invalid'}",
        "log": {"sqlite": {}},
        "directories": {DIRECTORY: {"ldif": {"file": f"{DIRECTORY}.ldif"}}},
        "listeners": [{"name": "mx", "role": "mx", "address": "0.0.0.0:25"}],
        "stores": {"local": {"maildir": {"path": "mail"}}},
    }
    return f"# Made by gatepost import {plan.source}: look through it, above all at addresses and paths.\n" + _yaml(
        settings
    )


def _domain(plan: Plan, one: DomainPlan) -> dict[str, Any]:
    recipients: dict[str, Any] = {
        "source": {"type": "Any"}
        if one.any_recipient
        else {"type": "Directory", "directoryRef": {"name": DIRECTORY}}
    }
    if one.unknown_to:
        recipients |= {"unknown": "DeliverTo", "unknownDeliverTo": one.unknown_to}
    if plan.separators:
        recipients["subaddressing"] = {"separators": plan.separators}
    if one.aliases:
        recipients["aliases"] = one.aliases
    spec: dict[str, Any] = {"domain": one.domain, "recipients": recipients}
    if one.domain == plan.main:
        spec["default"] = True
    if one.subdomains:
        spec["subdomains"] = True
    if one.alias_domains:
        spec["aliasDomains"] = one.alias_domains
    if one.hosts is not None:
        spec["delivery"] = {"type": "Relay", "hosts": one.hosts}
    if plan.smart_hosts:
        spec["outbound"] = {"smartHost": {"hosts": plan.smart_hosts}}
    return _object(mail_domain.KIND, one.domain, spec)


def _policy(plan: Plan, tables: list[str]) -> dict[str, Any]:
    spec: dict[str, Any] = {"target": {"type": "Listeners", "listeners": ["mx"]}, **plan.policy}
    if tables:
        # One listener took everything there, so networks relay at it here too.
        spec["relay"] = {**spec.get("relay", {}), "allowOnPublicListeners": True}
        spec["access"] = {"tables": [{"file": name} for name in tables]}
    return _object(relay_policy.KIND, "imported", spec)


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    safe = _NAME.sub("-", name.lower()).strip("-")
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": safe}, "spec": spec}


def _documents(objects: list[dict[str, Any]]) -> str:
    return "---\n".join(_yaml(one) for one in objects)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
