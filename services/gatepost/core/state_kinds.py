"""Every kind of entry in the memory that edges share (core/ports/state), in one table."""

from __future__ import annotations

from typing import Any, Final

from gatepost.core.bans import BAN
from gatepost.core.checks.greylist import GREYLIST
from gatepost.core.in_doubt import IN_DOUBT
from gatepost.core.pop_before_smtp import POP_LOGIN
from gatepost.core.ports.state import Kind

KINDS: Final[tuple[Kind[Any], ...]] = (IN_DOUBT, BAN, GREYLIST, POP_LOGIN)
