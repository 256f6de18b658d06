"""Renders the chart with the real helm; no cluster is needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.provision import kubernetes

CHART = Path(__file__).resolve().parents[2] / "charts" / "gatepost"
# The least that a release needs.
LEAST: Mapping[str, Any] = {"kafka": {"bootstrapServers": ["kafka.example:9092"]}}

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


class HelmRefused(Exception):
    """Helm's own words."""


def run_helm(home: Path, *words: str | Path) -> str:
    """Run helm without a cluster and a user's settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "XDG_", "KUBE"))}
    done = subprocess.run(
        [kubernetes.clients().helm, *words],
        env={**env, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise HelmRefused(done.stderr + done.stdout)
    return done.stdout


@pytest.fixture
def values_file(tmp_path: Path) -> Callable[[Mapping[str, Any]], Path]:
    """Write values to a file that helm can read."""

    def write(values: Mapping[str, Any]) -> Path:
        file = tmp_path / f"values-{len(list(tmp_path.iterdir()))}.yaml"
        file.write_text(yaml.safe_dump(dict(values)))
        return file

    return write


@pytest.fixture
def render(tmp_path: Path, values_file: Callable[[Mapping[str, Any]], Path]) -> Render:
    """render(values) -> the objects of a release called `mail` in the namespace `post`."""

    def rendered(values: Mapping[str, Any] = LEAST, release: str = "mail") -> Objects:
        words = ["template", release, str(CHART), "--namespace", "post", "-f", str(values_file(values))]
        return [one for one in yaml.safe_load_all(run_helm(tmp_path, *words)) if one]

    return rendered
