"""Settings for the commands: read from a file, and what compile must know of them."""

from __future__ import annotations

from gatepost.backends.settings_file import STATE_PLACEHOLDER, load_settings
from gatepost.core.compile.surroundings import surroundings

__all__ = ["STATE_PLACEHOLDER", "load_settings", "surroundings"]
