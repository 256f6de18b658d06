"""docs/requirements.md: every row is there, and a row that is met has a test that passed in this run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| (S\d+-\d+) \| (open|met|neighbour) \| (.*?) \| (.*?) \|$")


def rows() -> dict[str, tuple[str, str, str]]:
    found: dict[str, tuple[str, str, str]] = {}
    for line in (ROOT / "docs/requirements.md").read_text("utf-8").splitlines():
        match = ROW.match(line)
        if match is None:
            assert not re.match(r"^\| S\d", line), f"not a row: {line}"
            continue
        assert match[1] not in found, f"{match[1]} stands twice"
        found[match[1]] = (match[2], match[3], match[4])
    return found


def test_every_row_is_there() -> None:
    wanted = (ROOT / "tests/data/requirement-ids.txt").read_text().split()
    assert len(wanted) == 219
    assert sorted(rows()) == sorted(wanted)


def test_rows_say_how() -> None:
    for name, (status, how, _) in rows().items():
        assert status == "open" or len(how) > 10, f"{name} does not say how it is met"


def test_met_rows_have_a_marked_test() -> None:
    marked = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        marked |= set(re.findall(r'requirement\("(S\d+-\d+)"\)', path.read_text("utf-8")))
    met = {name for name, (status, _, _) in rows().items() if status == "met"}
    assert met - marked == set(), "met rows without a test that is marked with their id"


@pytest.mark.proofs
def test_met_rows_were_proven_in_this_run() -> None:
    folder = os.environ.get("GATEPOST_PROOFS")
    assert folder, "run by `make test`, which collects what passed in each lane"
    proven: set[str] = set()
    for path in Path(folder).glob("*.json"):
        proven |= set(json.loads(path.read_text()))
    met = {name for name, (status, _, _) in rows().items() if status == "met"}
    assert met - proven == set(), "met rows whose tests did not pass in this run"
