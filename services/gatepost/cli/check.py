"""`gatepost check`: validates the settings and manifests of a directory as the gateway would read them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gatepost.backends.access_file import read_access_file
from gatepost.backends.config_dir import SETTINGS_FILE, compile_directory
from gatepost.backends.settings_file import load_settings
from gatepost.core.access.entry import AccessError
from gatepost.core.compile import Compiled, Status
from gatepost.core.compile.surroundings import surroundings
from gatepost.core.configuration import Configuration
from gatepost.core.manifest.object import ObjectKey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--output", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    directory: Path = options.directory
    settings = load_settings(directory / SETTINGS_FILE, None)
    compiled = compile_directory(directory, surroundings(settings, any_namespace=True))
    rows = [
        {
            "object": str(key),
            "targets": [
                {"kind": each.kind, "name": each.name, "reason": each.condition.reason}
                for each in compiled.targets.get(key, ())
            ],
            "conditions": [
                {"type": c.type, "status": c.status.value, "reason": c.reason, "message": c.message}
                for c in conditions
            ],
        }
        for key, conditions in sorted(compiled.conditions.items())
    ]
    tables = _access_tables(directory, compiled.configuration)
    ok = not compiled.rejected and all(size is not None for size, _ in tables.values())
    if options.output == "json":
        access = [{"file": file, "rules": size, "fault": fault} for file, (size, fault) in tables.items()]
        print(json.dumps({"ok": ok, "objects": rows, "accessTables": access}, ensure_ascii=False))
    else:
        bad = dict(compiled.rejected)
        for key in sorted(compiled.conditions):
            print(f"{key}: {bad[key].reason}: {bad[key].message}" if key in bad else f"{key}: ok")
            for warning in compiled.warnings.get(key, ()):
                print(f"  warning: {warning}")
            for text in _conflicts(compiled, key) if key not in bad else ():
                print(f"  {text}")
        for file, (size, fault) in tables.items():
            print(f"access table {file}: {fault or f'{size} rules'}")
        print(f"{len(compiled.conditions)} objects, {len(bad)} refused")
    return 0 if ok else 1


def _conflicts(compiled: Compiled, key: ObjectKey) -> list[str]:
    """The targets for which an object that is in force for others is not."""
    return [
        f"not for {each.kind} {each.name}: {each.condition.reason}: {each.condition.message}"
        for each in compiled.targets.get(key, ())
        if each.condition.status is Status.FALSE
    ]


def _access_tables(directory: Path, configuration: Configuration) -> dict[str, tuple[int | None, str]]:
    """File -> number of rules, or None and the fault; of every table that a policy names."""
    found: dict[str, tuple[int | None, str]] = {}
    for policy in (*configuration.listeners, *(beside.policy for beside in configuration.beside)):
        for table in policy.access.tables if policy.access is not None else ():
            try:
                found[table.file] = (read_access_file(directory / table.file).size, "")
            except AccessError as error:
                found[table.file] = (None, str(error))
    return found
