"""The version that images are tagged with: the project's, from pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path


def app_version() -> str:
    """The project's version, which is the chart's appVersion too."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    return str(tomllib.loads(project.read_text("utf-8"))["project"]["version"])
