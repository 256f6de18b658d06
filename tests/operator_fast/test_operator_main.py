"""The process: what it says and returns when it cannot begin, and how it waits."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatepost.core.manifest.settings import LogSettings, Settings, SqliteSettings
from gatepost_operator.main import lease_name
from gatepost_operator.watch import Backoffs, operator_settings


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("", "gatepost-operator"), ("mail.", "mail-operator"), ("post.office.mail.", "mail-operator")],
)
def test_the_lease_is_named_after_the_release(prefix: str, name: str) -> None:
    assert lease_name(Settings(log=LogSettings(sqlite=SqliteSettings(), topic_prefix=prefix))) == name


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"log": {"sqlite": {}}}, 2, "the operator needs a log on Kafka"),
        ({"logs": {}}, 2, "logs"),
        ({"log": {"kafka": {}}}, 3, "no way to the Kubernetes API"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, settings: dict[str, object], code: int, words: str
) -> None:
    """In a process: it sets up logging for the whole of one."""
    file = tmp_path / "gatepost.yaml"
    file.write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "gatepost_operator.main", "--config", file],
        env={**os.environ, "KUBECONFIG": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("gatepost-operator: ")
    assert words in last


def test_retries_never_end_and_begin_anew_each_time() -> None:
    """kopf iterates over them anew for each request, and gives up when they end."""
    backoffs = Backoffs()
    first = list(itertools.islice(backoffs, 500))
    assert len(first) == 500
    assert first[0] <= 0.5
    assert max(first) <= 15.0
    assert min(first[20:]) >= 7.5
    assert next(iter(backoffs)) <= 0.5


def test_kopf_writes_nothing_and_notices_silence() -> None:
    settings = operator_settings()
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.watching.inactivity_timeout is not None
    assert settings.watching.client_timeout is not None
    assert settings.networking.request_timeout is not None
