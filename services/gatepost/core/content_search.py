"""Searches the content of one message while it comes: its files, its archives, and how its texts are written.

    feed, finish      the message, in pieces of any size
    hits, removed, opaque, defects, finding      what was found so far
    archives          what is still to be looked into, which takes time: not here

Kept of the message: a text of MAX_TEXT octets, and its archives in files that `scratch` gives, up to MAX_SPOOLED.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Final, NamedTuple

from gatepost.core.archives import Kind, archive_kind, is_archive_name
from gatepost.core.archives.kinds import HEAD
from gatepost.core.checks.attachments import MAX_REMOVED, AttachmentPolicy, AttachmentTable, FileHit, Opaque
from gatepost.core.checks.charset import MAX_TEXT, CharsetPolicy, Finding, text_fault
from gatepost.core.manifest.actions import Action
from gatepost.core.mime.decoding import Decoder, decoder_for
from gatepost.core.mime.part import Defect, Part, Uuencoded
from gatepost.core.mime.walker import Walker

# Of one message: octets of archives that are kept to be looked into, and their number.
MAX_SPOOLED: Final = 64 * 2**20
MAX_ARCHIVES: Final = 100
# Messages inside that are encoded as a whole, against RFC 2046 5.2.1, and searched all the same.
MAX_INNER: Final = 20
# Hits of one rule in one message that are kept.
MAX_HITS: Final = 3

_BINHEX: Final = "application/mac-binhex40"
_PLAIN: Final = AttachmentTable(AttachmentPolicy())


class Archive(NamedTuple):
    """`file` holds the archive; whoever looks into it closes it. `outer` is the part that it came in."""

    file: BinaryIO
    name: str
    outer: Part


class Removed(NamedTuple):
    """A part, or a uuencoded file in one, that is left out; `hit` says why."""

    what: Part | Uuencoded
    hit: FileHit


class ContentSearch:
    """A Visitor of its own Walker. `outer`: the part in which the message lies that is searched."""

    def __init__(
        self,
        attachments: AttachmentTable | None,
        charset: CharsetPolicy | None,
        scratch: Callable[[], BinaryIO],
        found: Found | None = None,
        outer: Part | None = None,
    ) -> None:
        self._table = attachments or _PLAIN
        self._files, self._charset, self._scratch = attachments is not None, charset, scratch
        self.found = found or Found()
        self._outer = outer
        policy = self._table.policy
        depth = 0 if outer is None else outer.depth + 1
        self._walker = Walker(self, policy.max_depth, policy.max_parts, depth)
        self._leaf: _Leaf | None = None

    def feed(self, piece: bytes) -> None:
        self._walker.feed(piece)

    def finish(self) -> None:
        self._walker.finish()

    # -- what the walker tells

    def part(self, part: Part) -> bool:
        self._leaf = _Leaf(part)
        if self._files:
            for name in part.names:
                self._file(name, part, part)
            if part.type in ("message/partial", _BINHEX):
                self._opaque(part, f"{part.type} hides what it holds")
        removed = not part.is_multipart and id(self._outer or part) in self.found.removed
        self._begin(self._leaf, removed=removed)
        return not removed

    def body(self, part: Part, piece: bytes) -> None:
        leaf = self._leaf
        if leaf is not None and leaf.reads:
            self._content(leaf, leaf.decoder.feed(piece))

    def ended(self, part: Part) -> None:
        leaf, self._leaf = self._leaf, None
        if leaf is None or not leaf.reads:
            return
        self._content(leaf, leaf.decoder.finish())
        if leaf.sniffs:
            self._sniff(leaf, leaf.head)
        if leaf.text is not None:
            self._judge_text(leaf, cut=False)
        if leaf.inner is not None:
            leaf.inner.finish()
        if leaf.spool is not None:
            self.found.archives.append(Archive(leaf.spool, leaf.name, self._outer or part))

    def uuencoded(self, file: Uuencoded) -> None:
        if not self._files:
            return
        part = self._outer or file.part
        number = 0 if part is None else part.number
        self._note_hits(file.name, number)
        if self._table.removes(file.name):
            self._remove(file if self._outer is None else self._outer, file.name, number)
        elif is_archive_name(file.name):
            self.found.opaque.append(Opaque(file.name, number, "uuencoded"))

    def defect(self, defect: Defect) -> None:
        self.found.defects.add(defect)

    # -- files

    def _file(self, name: str, part: Part, what: Part) -> None:
        number = (self._outer or part).number
        self._note_hits(name, number)
        if self._table.removes(name) and not part.is_multipart:
            self._remove(self._outer or what, name, number)

    def _note_hits(self, name: str, number: int) -> None:
        for hit in self._table.hits(name, number):
            self.found.hit(hit)

    def _remove(self, what: Part | Uuencoded, name: str, number: int) -> None:
        self.found.remove(what, FileHit("remove", Action.TAG, name, number))

    def _opaque(self, part: Part, reason: str) -> None:
        name = part.names[0] if part.names else part.type
        if len(self.found.opaque) < MAX_ARCHIVES:
            self.found.opaque.append(Opaque(name, (self._outer or part).number, reason))

    # -- content

    def _begin(self, leaf: _Leaf, *, removed: bool) -> None:
        part = leaf.part
        if removed or part.is_multipart or (part.is_message and not part.is_encoded):
            return
        promises = any(map(is_archive_name, part.names))
        leaf.sniffs = self._files and self._table.policy.inside_archives and (promises or not part.is_text)
        if self._charset is not None and part.is_text and self.found.finding is None:
            leaf.text = bytearray()
        if part.is_message and part.depth < self._table.policy.max_depth:
            self.found.inner += 1
            if self.found.inner > MAX_INNER:
                self._opaque(part, "more encoded messages than are looked into")
                return
            leaf.inner = ContentSearch(
                self._table if self._files else None,
                self._charset,
                self._scratch,
                self.found,
                self._outer or part,
            )
            leaf.sniffs = False

    def _content(self, leaf: _Leaf, data: bytes) -> None:
        if leaf.inner is not None:
            leaf.inner.feed(data)
        if leaf.text is not None:
            leaf.text += data[: MAX_TEXT - len(leaf.text)]
            if len(leaf.text) >= MAX_TEXT:
                self._judge_text(leaf, cut=True)
        if leaf.sniffs:
            leaf.head += data
            if len(leaf.head) >= HEAD:
                self._sniff(leaf, leaf.head)
        elif leaf.spool is not None:
            self._keep(leaf, data)

    def _judge_text(self, leaf: _Leaf, *, cut: bool) -> None:
        text, leaf.text = leaf.text, None
        if self._charset is None or text is None:
            return
        declared = next((value for name, value in leaf.part.content_parameters() if name == "charset"), "")
        fault = text_fault(self._charset, declared, bytes(text), cut=cut)
        if fault and self.found.finding is None:
            self.found.finding = Finding(f"part {(self._outer or leaf.part).number}", fault)

    def _sniff(self, leaf: _Leaf, head: bytes) -> None:
        """The first octets are here: keep it, if it is an archive."""
        leaf.sniffs, leaf.head = False, b""
        kind = None
        for name in (*leaf.part.names, leaf.part.type):
            leaf.name, kind = name, archive_kind(head[:HEAD], name)
            if kind is not None:
                break
        if kind is None:
            return
        if kind is Kind.OTHER:
            self._opaque(leaf.part, "damaged, or of a kind that is not looked into")
        elif len(self.found.archives) >= MAX_ARCHIVES:
            self._opaque(leaf.part, "more archives than are looked into")
        else:
            try:
                leaf.spool = self._scratch()
            except OSError:
                self._opaque(leaf.part, "no room to look into it")
                return
            self._keep(leaf, head)

    def _keep(self, leaf: _Leaf, data: bytes) -> None:
        assert leaf.spool is not None
        self.found.spooled += len(data)
        reason = "too large" if self.found.spooled > MAX_SPOOLED else ""
        if not reason:
            try:
                leaf.spool.write(data)
            except OSError:
                reason = "no room to look into it"
        if reason:
            self.found.spooled -= leaf.spool.tell()
            leaf.spool.close()
            leaf.spool = None
            self._opaque(leaf.part, reason)

    def close(self) -> None:
        """Give up what is kept; again is fine."""
        if self._leaf is not None:
            if self._leaf.spool is not None:
                self._leaf.spool.close()
            if self._leaf.inner is not None:
                self._leaf.inner.close()
        for archive in self.found.archives:
            archive.file.close()
        self.found.archives.clear()


class Found:
    """What a search has found; bounded in each of its parts. `removed` by identity of what is left out."""

    def __init__(self) -> None:
        self.hits: list[FileHit] = []
        self._counts: dict[str, int] = {}
        self.inner = 0
        self.removed: dict[int, Removed] = {}
        self.opaque: list[Opaque] = []
        self.defects: set[Defect] = set()
        self.finding: Finding | None = None
        self.archives: list[Archive] = []
        self.spooled = 0

    def hit(self, hit: FileHit) -> None:
        """Keep a hit, unless its rule has enough."""
        count = self._counts.get(hit.rule, 0)
        if count < MAX_HITS:
            self._counts[hit.rule] = count + 1
            self.hits.append(hit)

    def remove(self, what: Part | Uuencoded, hit: FileHit) -> None:
        """Leave something out, once; one more than the most is kept, so that it can be told."""
        if len(self.removed) <= MAX_REMOVED:
            self.removed.setdefault(id(what), Removed(what, hit))

    def add(self, other: Found) -> None:
        """What was found in archives so far; copied at once, for a thread may still write there."""
        for hit in tuple(other.hits):
            self.hit(hit)
        for removed in tuple(other.removed.values()):
            self.remove(*removed)
        self.opaque += tuple(other.opaque)


class _Leaf:
    """A part whose body comes, and what is wanted of it."""

    __slots__ = ("_decoder", "head", "inner", "name", "part", "sniffs", "spool", "text")

    def __init__(self, part: Part) -> None:
        self.part = part
        self._decoder: Decoder | None = None
        self.head = b""
        self.name = ""
        self.sniffs = False
        self.text: bytearray | None = None
        self.spool: BinaryIO | None = None
        self.inner: ContentSearch | None = None

    @property
    def reads(self) -> bool:
        return self.sniffs or self.text is not None or self.spool is not None or self.inner is not None

    @property
    def decoder(self) -> Decoder:
        if self._decoder is None:
            self._decoder = decoder_for(self.part.encoding)
        return self._decoder
