"""`python -m crdgen [--check] [--folder DIR]`: writes crds/*.yaml, or says which of them are stale."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from crdgen.definitions import KINDS, definition

CRDS = Path(__file__).resolve().parent.parent.parent / "crds"
HEADER = "# Generated from services/gatepost/core/manifest by `make crds`; do not edit.\n"


def generated() -> dict[str, str]:
    """Return file name -> text of every definition. Raises SchemaError."""
    return {
        kind.file: HEADER + yaml.safe_dump(definition(kind), sort_keys=False, width=100, allow_unicode=True)
        for kind in KINDS
    }


def stale(folder: Path) -> list[str]:
    """Return what is wrong with the folder, a line for each file."""
    wanted = generated()
    there = {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.yaml"))}
    problems = [f"{folder / name}: is missing" for name in wanted if name not in there]
    problems += [f"{folder / name}: is stale" for name in wanted if name in there and there[name] != wanted[name]]
    return problems + [f"{folder / name}: no type makes this file" for name in there if name not in wanted]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="crdgen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    parser.add_argument("--folder", type=Path, default=CRDS)
    options = parser.parse_args(arguments)
    if options.check:
        problems = stale(options.folder)
        for problem in problems:
            print(f"crdgen: {problem}; run: make crds", file=sys.stderr)
        return 1 if problems else 0
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, text in generated().items():
        (options.folder / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
