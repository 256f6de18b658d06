"""main.cf: parameters with their place, $names replaced (postconf(5)); and lists of tables and restrictions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from gatepost.core.imports.plan import Place
from gatepost.core.imports.text_maps import logical_lines

_REFERENCE = re.compile(r"\$(?:\{([A-Za-z0-9_]+)\}|\(([A-Za-z0-9_]+)\)|([A-Za-z0-9_]+))")
MAX_DEPTH: Final = 20  # of names that refer to names
_TABLE = re.compile(r"([a-z_]+):(.+)")

TEXT_TABLES: Final = frozenset({"hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash", "static"})


class Parameter(msgspec.Struct, frozen=True):
    value: str
    place: Place


class MainCf:
    """The parameters by name. `files` are the tables beside it, by their last name."""

    def __init__(self, text: str, files: Mapping[str, str]) -> None:
        self.files = files
        self.parameters: dict[str, Parameter] = {}
        self.faults: list[Place] = []
        for line, place in logical_lines(text, "main.cf", continued=True):
            name, equals, value = line.partition("=")
            if not equals:
                self.faults.append(place)
            else:
                self.parameters[name.strip()] = Parameter(value.strip(), place)  # the last one counts
        self.used: set[str] = set()

    def get(self, name: str, default: str = "") -> str:
        """The value with its $names replaced; marks the parameter as understood."""
        self.used.add(name)
        parameter = self.parameters.get(name)
        return self._expand(parameter.value if parameter else default, 0)

    def place(self, name: str) -> Place:
        parameter = self.parameters.get(name)
        return parameter.place if parameter else Place("main.cf", 0, f"{name} (its default)")

    def words(self, name: str, default: str = "") -> list[str]:
        """A list: blanks and commas separate."""
        return [word for word in re.split(r"[\s,]+", self.get(name, default)) if word]

    def table(self, word: str) -> tuple[str, str, str] | None:
        """(type, file, text) of "hash:/etc/postfix/x"; None when the file is not at hand, or this is no table."""
        found = _TABLE.fullmatch(word)
        if found is None:
            return None
        name = found[2].rsplit("/", 1)[-1]
        text = self.files.get(name)
        return None if text is None else (found[1], name, text)

    def restrictions(self, name: str) -> Iterator[tuple[str, str]]:
        """The restrictions of a list, each with its argument ("" without one)."""
        words = self.words(name)
        place = 0
        while place < len(words):
            word = words[place]
            takes = word.startswith(("check_", "reject_rbl", "reject_rhsbl", "permit_dnswl", "permit_rhswl"))
            argument = words[place + 1] if takes and place + 1 < len(words) else ""
            yield word, argument
            place += 2 if argument else 1

    def _expand(self, value: str, depth: int) -> str:
        if depth > MAX_DEPTH:
            return value
        host = self.parameters.get("myhostname")
        defaults = {
            "myhostname": "",
            "mydomain": host.value.split(".", 1)[-1] if host else "",
            "myorigin": "$myhostname",
        }

        def one(found: re.Match[str]) -> str:
            name = found[1] or found[2] or found[3]
            parameter = self.parameters.get(name)
            return self._expand(parameter.value if parameter else defaults.get(name, ""), depth + 1)

        return _REFERENCE.sub(one, value)
