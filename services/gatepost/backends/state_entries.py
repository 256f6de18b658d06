"""The entries of the shared memory in one process: bounded by kind, the oldest written forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import structlog

from gatepost.core.ports.state import MAX_KEY, MAX_VALUE, Kind
from gatepost.telemetry import metrics

# Of the oldest entries so many are looked at for each one that is added: those that have expired make room before
# one that has not is forgotten. Two are enough to fall below any number in time.
_LOOK_AT: Final = 2

_log = structlog.get_logger("gatepost.state")
_encoder = msgspec.json.Encoder()


class _Stored(msgspec.Struct, frozen=True, gc=False):
    """A record's value: the kind's version, when the entry expires (ms since 1970), the entry itself."""

    v: int
    until: int
    data: msgspec.Raw


_stored = msgspec.json.Decoder(_Stored)


def record_key(kind: Kind[Any], key: str) -> bytes:
    """Return the key in the log. Raises ValueError when it is too long."""
    if not 0 < len(key) <= MAX_KEY:
        raise ValueError(f"a key of {kind.name} has {len(key)} characters; 1 to {MAX_KEY} are possible")
    return f"{kind.name}/{key}".encode("utf-8", "surrogateescape")


def record_value(kind: Kind[Any], value: Any, until_ms: int) -> bytes:
    """Return the value in the log. Raises ValueError when it is too large."""
    data = _encoder.encode(value)
    if len(data) > MAX_VALUE:
        raise ValueError(f"a value of {kind.name} has {len(data)} bytes; {MAX_VALUE} are possible")
    return _encoder.encode(_Stored(kind.version, until_ms, msgspec.Raw(data)))


class Entries:
    """One kind's entries, as they stand at one place in the log. Values are kept encoded: that takes least room."""

    def __init__(self, kind: Kind[Any]) -> None:
        self.kind = kind
        self._decoder = msgspec.json.Decoder(kind.type)
        # key -> 8 bytes of expiry and the encoded value, in the order in which they were written.
        self._all: OrderedDict[str, bytes] = OrderedDict()
        self._callbacks: list[Callable[[str, Any], None]] = []

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: str, now_ms: int) -> Any:
        packed = self._all.get(key)
        if packed is None:
            return None
        if int.from_bytes(packed[:8], "big") <= now_ms:
            self._drop(key)
            return None
        return self._decoder.decode(packed[8:])

    def take_in(self, key: str, value: bytes, now_ms: int) -> None:
        """Note what a record says; an unreadable one is counted and passed over, an expired one only removes."""
        try:
            stored = _stored.decode(value)
            if stored.v != self.kind.version or not 0 <= stored.until < 1 << 63:
                raise msgspec.ValidationError(f"version {stored.v} is not {self.kind.version}")
            data = bytes(stored.data)
            decoded = self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            metrics.STATE_UNREADABLE.add(self.kind.name)
            _log.warning("state.unreadable", kind=self.kind.name, key=key, reason=str(error))
            return
        if stored.until <= now_ms:
            # Whoever reads the whole log meets more that is over than what is not: it must not push that out.
            self.remove(key)
            return
        self._make_room(now_ms, key)
        self._all[key] = stored.until.to_bytes(8, "big") + data
        self._all.move_to_end(key)
        self._tell(key, decoded)

    def remove(self, key: str) -> Any:
        """Remove an entry and return its value, or None when it is not there."""
        packed = self._all.get(key)
        if packed is None:
            return None
        self._drop(key)
        return self._decoder.decode(packed[8:])

    def on_change(self, callback: Callable[[str, Any], None]) -> None:
        self._callbacks.append(callback)
        for key, packed in list(self._all.items()):
            self._call(callback, key, self._decoder.decode(packed[8:]))

    def _make_room(self, now_ms: int, key: str) -> None:
        """Forget some that have expired, and the first written when there are too many."""
        for _ in range(_LOOK_AT):
            oldest = next(iter(self._all), None)
            if oldest is None or int.from_bytes(self._all[oldest][:8], "big") > now_ms:
                break
            self._drop(oldest)
        if key not in self._all and len(self._all) >= self.kind.most:
            metrics.STATE_EVICTED.add(self.kind.name)
            self._drop(next(iter(self._all)))

    def _drop(self, key: str) -> None:
        del self._all[key]
        self._tell(key, None)

    def _tell(self, key: str, value: Any) -> None:
        for callback in self._callbacks:
            self._call(callback, key, value)

    def _call(self, callback: Callable[[str, Any], None], key: str, value: Any) -> None:
        try:
            callback(key, value)
        except Exception:  # a fault of a user of one kind must not end the following of all
            _log.exception("state.callback", kind=self.kind.name, key=key)


class AllEntries:
    """The entries of every kind that this program knows, by name."""

    def __init__(self, kinds: Sequence[Kind[Any]]) -> None:
        self._kinds = {kind.name: Entries(kind) for kind in kinds}
        if len(self._kinds) != len(kinds):
            raise ValueError("two kinds of state have one name")
        metrics.STATE_ENTRIES.read = lambda: {(name,): float(len(each)) for name, each in self._kinds.items()}

    def of(self, kind: Kind[Any]) -> Entries:
        """Raises KeyError for a kind that was not declared."""
        return self._kinds[kind.name]

    def find(self, record_key: bytes) -> tuple[Entries, str] | None:
        """Return where a record belongs; None for a kind that this program does not know (a later version's)."""
        name, separator, key = record_key.decode("utf-8", "surrogateescape").partition("/")
        entries = self._kinds.get(name)
        return (entries, key) if entries is not None and separator and key else None
