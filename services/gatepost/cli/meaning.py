"""`gatepost meaning`: what a check (the word in brackets at the end of a refusal) or a status code means."""

from __future__ import annotations

import argparse
import json
import sys

import msgspec

from gatepost.core.delivery_meanings import DELIVERY
from gatepost.core.meanings import CHECKS, Meaning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", metavar="CHECK|CODE", help='as "relay" or "4.4.1"; without it: all')
    parser.add_argument("--output", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    everything = {**CHECKS, **DELIVERY}
    word = (options.word or "").strip("()").lower()
    found = {word: everything[word]} if word in everything else {} if word else everything
    if options.output == "json":
        print(json.dumps(msgspec.to_builtins(found), ensure_ascii=False, indent=2))
    elif not found:
        print(f"there is no check and no status {options.word!r}; gatepost meaning lists all", file=sys.stderr)
    else:
        print("\n\n".join(_text(name, meaning) for name, meaning in found.items()))
    return 0 if found else 1


def _text(name: str, meaning: Meaning) -> str:
    rows = {"sender": meaning.sender, "administrator": meaning.administrator}
    return "\n".join([f"{name}: {meaning.cause}", *(f"  {who}: {text}" for who, text in rows.items())])
