"""Renders the chart with the real helm; no cluster is needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.provision import kubernetes

CHART = Path(__file__).resolve().parents[2] / "charts" / "gatepost"
EXAMPLES = CHART.parents[1] / "examples" / "kubernetes"
VALUES = Path(__file__).with_name("values")


class HelmRefused(Exception):
    """Helm's own words."""


class Helm:
    """The real helm without a cluster and without a user's settings."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.refused = HelmRefused

    def run(self, *words: str | Path) -> str:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "XDG_", "KUBE"))}
        done = subprocess.run(
            [kubernetes.clients().helm, *words],
            env={**env, "HOME": str(self._home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise HelmRefused(done.stderr + done.stdout)
        return done.stdout

    def file(self, values: str) -> Path:
        """`least` is in values/, `examples/production` in examples/kubernetes/."""
        folder, _, name = values.rpartition("/")
        return (EXAMPLES if folder == "examples" else VALUES) / f"{name}.yaml"

    def render(self, values: str = "least", *words: str, release: str = "mail") -> list[dict[str, Any]]:
        """The objects of a release in the namespace `post`."""
        place = ["--namespace", "post", "-f", str(self.file(values))]
        text = self.run("template", release, CHART, *place, *words)
        return [one for one in yaml.safe_load_all(text) if one]


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    return Helm(tmp_path)


@pytest.fixture
def settings_of(helm: Helm, tmp_path: Path) -> Callable[..., Path]:
    """settings_of(values, key) -> a file with what the pods find as gatepost.yaml."""

    def write(values: str, key: str, *words: str) -> Path:
        (text,) = [
            one["data"][key]
            for one in helm.render(values, *words)
            if one["kind"] == "ConfigMap" and key in one["data"]
        ]
        file = tmp_path / key
        file.write_text(text)
        return file

    return write
