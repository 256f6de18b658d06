"""`gatepost check`: validates the settings and manifests of a directory as the gateway would read them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gatepost.backends.config_dir import SETTINGS_FILE, compile_directory
from gatepost.backends.settings_file import load_settings
from gatepost.core.compile.surroundings import surroundings


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
            "conditions": [
                {"type": c.type, "status": c.status.value, "reason": c.reason, "message": c.message}
                for c in conditions
            ],
        }
        for key, conditions in sorted(compiled.conditions.items())
    ]
    if options.output == "json":
        print(json.dumps({"ok": not compiled.rejected, "objects": rows}, ensure_ascii=False))
    else:
        bad = dict(compiled.rejected)
        for key in sorted(compiled.conditions):
            print(f"{key}: {bad[key].reason}: {bad[key].message}" if key in bad else f"{key}: ok")
            for warning in compiled.warnings.get(key, ()):
                print(f"  warning: {warning}")
        print(f"{len(compiled.conditions)} objects, {len(bad)} refused")
    return 1 if compiled.rejected else 0
