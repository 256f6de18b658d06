"""Settings from gatepost.yaml and the environment, with {state} in paths replaced, checked as a whole."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from gatepost.core.manifest.read import ManifestError, apply_environment, convert, load_yaml
from gatepost.core.manifest.settings import Settings
from gatepost.core.manifest.settings_rules import check_settings

STATE_PLACEHOLDER: Final = "{state}"


def load_settings(file: Path, state: Path | None, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the checked Settings. `state` wins over the file's. Raises ManifestError."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(str(file), "", f"cannot be read: {error}") from None
    documents = load_yaml(text, str(file))
    if len(documents) > 1:
        raise ManifestError(str(file), "", "one document is expected")
    document = documents[0] if documents else {}
    if not isinstance(document, dict):
        raise ManifestError(str(file), "", "a mapping of settings is expected")
    document = apply_environment(document, os.environ if environment is None else environment, Settings)
    if state is not None:
        document["state"] = str(state)
    document = _with_state(document, str(document.get("state", "var")))
    settings = convert(document, Settings, str(file))
    if not settings.hostname:
        settings = msgspec.structs.replace(settings, hostname=socket.getfqdn().lower())
    check_settings(settings, str(file))
    return settings


def _with_state(value: Any, state: str) -> Any:
    if isinstance(value, dict):
        return {key: _with_state(item, state) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_state(item, state) for item in value]
    if isinstance(value, str):
        return value.replace(STATE_PLACEHOLDER, str(Path(state).resolve()))
    return value
