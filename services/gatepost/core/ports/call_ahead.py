"""Asking the next host whether it takes a recipient. Implemented by backends/call_ahead over SMTP."""

from __future__ import annotations

from typing import Protocol

from gatepost.core.address import Address
from gatepost.core.call_ahead import CallAheadPlan


class CallAhead(Protocol):
    """Answers are kept as the plan says; each question has its time limit."""

    async def takes(self, plan: CallAheadPlan, address: Address) -> bool:
        """Whether the plan's hosts take a recipient. True also for hosts that were found to take every address.

        A caller may give a question up at its first wait and ask again: the hosts are asked once.

        Raises core.ports.directory.DirectoryUnavailable when no host answers, or the answers decide nothing.
        """

    async def close(self) -> None: ...
