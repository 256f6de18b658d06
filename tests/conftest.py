"""Collects which requirement rows were proven by tests that passed, for the last lane of `make test`."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest

FAILS_WITHOUT = "Fails without"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("lengthy") is None)
    for item in items:
        if item.get_closest_marker("requirement") is None:
            continue
        document = getattr(getattr(item, "function", None), "__doc__", None) or ""
        if FAILS_WITHOUT not in document:
            raise pytest.UsageError(
                f"{item.nodeid}: a test that proves a requirement says in its docstring '{FAILS_WITHOUT} ...'"
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if report.when == "call" and report.passed:
        ids = [str(marker.args[0]) for marker in item.iter_markers("requirement")]
        report.user_properties.extend(("requirement", one) for one in ids)
    return report


_proven: dict[str, list[str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        for name, value in report.user_properties:
            if name == "requirement":
                _proven.setdefault(str(value), []).append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    folder = os.environ.get("GATEPOST_PROOFS")
    if folder and _proven and not hasattr(session.config, "workerinput"):
        Path(folder, f"{uuid.uuid4().hex}.json").write_text(json.dumps(_proven))
