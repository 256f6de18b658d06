"""The table of what outages look like; written to docs/outages.md by `make outages` only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.outages import Table

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/outages.md"
WRITE = "GATEPOST_WRITE_OUTAGES"


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    made = Table()
    yield made
    if os.environ.get(WRITE):
        if hasattr(request.config, "workerinput"):
            raise pytest.UsageError(f"{WRITE}: each worker sees a part of the table only; run without -n")
        PAGE.write_text(made.page())
