"""The DNS Tree Walk and what it finds: organizational domain and policy record (RFC 9989 4.10)."""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.authentication.dmarc.record import DmarcRecord, read_record
from gatepost.core.authentication.names import MAX_NAME
from gatepost.core.authentication.questions import Asking, Known, ask

# 4.10 step 4: from eight labels on, the walk goes on with seven: eight questions at most.
MAX_QUERIES: Final = 8
_LABELS_KEPT: Final = MAX_QUERIES - 1


class Walked(msgspec.Struct, frozen=True):
    """The records of one walk from the start upwards: (domain, record), only where there was exactly one.

    `start_exists`: False only when the DNS said that the start does not exist. `failed`: a question had no
    answer, and nothing that hangs on this walk is known.
    """

    start: str
    found: tuple[tuple[str, DmarcRecord], ...] = ()
    failed: bool = False

    def record_of(self, domain: str) -> DmarcRecord | None:
        return next((record for name, record in self.found if name == domain), None)

    @property
    def organizational_domain(self) -> str:
        """4.10.2, from the longest name to the shortest."""
        for name, record in self.found:
            if record.psd == "n":
                return name
            if record.psd == "y" and name != self.start:
                labels = self.start.split(".")
                return ".".join(labels[-len(name.split(".")) - 1 :])
        return self.found[-1][0] if self.found else self.start

    @property
    def suffix(self) -> str:
        """The Public Suffix Domain: where the walk found psd=y; "" when it did not."""
        return next((name for name, record in self.found if record.psd == "y"), "")


def walk(start: str) -> Asking[Walked]:
    """Walk from a domain to the top: at most eight questions, one after the other since psd= ends it."""
    found: list[tuple[str, DmarcRecord]] = []
    for domain in targets(start):
        record = None
        name = f"_dmarc.{domain}"
        if len(name) <= MAX_NAME:
            answer = yield from ask(name, "TXT")
            if answer.known is Known.FAILED:
                return Walked(start, tuple(found), failed=True)
            record = _only_record(answer.records)
        if record is None:
            continue
        found.append((domain, record))
        if record.psd in ("y", "n"):
            break
    return Walked(start, tuple(found))


def targets(start: str) -> list[str]:
    """The domains to ask at, in order (4.10 steps 1, 4, 7)."""
    labels = start.split(".")
    above = min(len(labels) - 1, _LABELS_KEPT)
    return [start, *(".".join(labels[-count:]) for count in range(above, 0, -1))]


def _only_record(texts: tuple[str, ...]) -> DmarcRecord | None:
    """Steps 2 and 6: what is no DMARC record is discarded, and of several all are."""
    records = [record for record in map(read_record, texts) if record is not None]
    return records[0] if len(records) == 1 else None
