"""One function for each parser: takes any octets, and raises only where the parser has a fault.

A target lets through the errors that the parser's docstring names, and checks what must hold whatever came: that a
reader finds the same in one piece as in many, that what was read can be written and read again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import dns.exception
import dns.message
import dns.rcode

from gatepost.backends import scanner_clamd, scanner_rspamd
from gatepost.backends.resolver_dns import read_response
from gatepost.core import proxy_protocol, sasl
from gatepost.core.access.entry import AccessError
from gatepost.core.access.source import read_table
from gatepost.core.access.table import AccessTable
from gatepost.core.address import AddressError, parse_address
from gatepost.core.authentication.arc import ArcVerification
from gatepost.core.authentication.dkim import BodyHasher, DkimVerification
from gatepost.core.authentication.dmarc import check_dmarc
from gatepost.core.authentication.questions import Asking, DnsAnswer, Known
from gatepost.core.authentication.results_field import collected_results, forged_spans
from gatepost.core.authentication.spf import check_mail_from
from gatepost.core.data_reader import ChunkReader, DataReader
from gatepost.core.headers import read_header
from gatepost.core.mime.decoding import decoder_for
from gatepost.core.mime.part import Defect, Part, Uuencoded
from gatepost.core.mime.walker import Walker
from gatepost.core.mime.words import decode_words
from gatepost.core.ports.scanner import ScannerRefused, ScannerUnavailable
from gatepost.core.smtp_commands import CommandError, parse_helo, parse_mail, parse_rcpt
from gatepost.core.smtp_path import parse_path
from gatepost.core.xclient import parse_xclient
from gatepost.core.xtext import XtextError, decode_utf8_address, decode_xtext

Target = Callable[[bytes], None]

NOW: Final = 1_790_000_000
LIMIT: Final = 1 << 20  # octets; more than any input here
# Rounds of questions after which an evaluation counts as endless; SPF may ask ten times (RFC 7208 4.6.4).
MOST_ROUNDS: Final = 100
# Octets of a line from which on a walker need not see the same in pieces: it does not wait for the end of such.
LONG_LINE: Final = 400


def commands(data: bytes) -> None:
    """The arguments of HELO, MAIL, RCPT and XCLIENT."""
    parsers: tuple[Callable[[], object], ...] = (
        lambda: parse_helo(data),
        lambda: parse_mail(data, extended=True),
        lambda: parse_mail(data, extended=False),
        lambda: parse_rcpt(data, utf8=True),
        lambda: parse_rcpt(data, utf8=False),
        lambda: parse_xclient(data),
    )
    for parse in parsers:
        with contextlib.suppress(CommandError):
            parse()


def addresses(data: bytes) -> None:
    """An address that was read can be written, and is the same when it is read again."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(AddressError):
        parse_path(text)
    try:
        address = parse_address(text)
    except AddressError:
        return
    if parse_address(str(address)) != address or "\n" in str(address):
        raise AssertionError(f"{address!r} is not what it is written as")


def data_reader(data: bytes) -> None:
    """DATA: pieces of any size give what one piece gives; the first octet says how large they are."""
    size, content = (data[0] or 1) if data else 1, data[1:]
    for normalize in (False, True):
        whole = _read(DataReader(LIMIT, 1000, normalize=normalize), content, len(content) or 1)
        parts = _read(DataReader(LIMIT, 1000, normalize=normalize), content, size)
        if whole != parts:
            raise AssertionError(f"in pieces {parts}, in one {whole}")


def _read(reader: DataReader, content: bytes, size: int) -> object:
    got, rest = b"", b""
    for start in range(0, len(content), size):
        if reader.finished:
            rest = content[start:]
            break
        got += reader.feed(content[start : start + size])
    if reader.fault is not None:
        return reader.finished, reader.fault, reader.rest + rest
    if not reader.finished:
        return False  # what is kept back depends on the pieces
    return got, reader.rest + rest, bytes(reader.header), reader.size, reader.eight_bit


def bdat(data: bytes) -> None:
    """BDAT: chunks whose lengths are in the input; not one octet is lost or taken twice."""
    reader, taken, got = ChunkReader(LIMIT, 1000, normalize=bool(data[:1] == b"n")), 0, b""
    place = 1
    while place < len(data):
        length = data[place]
        chunk = data[place + 1 : place + 1 + length]
        place += 1 + length
        reader.expect(len(chunk), last=place >= len(data))
        got += reader.feed(chunk + b"QUIT")
        taken += len(chunk)
        if not reader.finished or reader.rest != b"QUIT":
            raise AssertionError("a chunk has another end")
    if reader.fault is None and reader.declared != taken:
        raise AssertionError("octets are counted wrongly")
    if reader.fault is None and data[:1] != b"n" and len(got) != taken and reader.complete:
        raise AssertionError("octets are lost")


def dns_answers(data: bytes) -> None:
    """A datagram of a DNS server, as the resolver reads it."""
    try:
        response = dns.message.from_wire(data, raise_on_truncation=True)
    except (dns.exception.DNSException, EOFError):
        return
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return
    with contextlib.suppress(dns.exception.DNSException, ValueError):
        read_response(response)


def spf(data: bytes) -> None:
    """Records of the sender's domain, one in each line; every name that they lead to has the same ones."""
    records = tuple(line.decode("utf-8", "surrogateescape") for line in data.split(b"\n"))
    for client in ("192.0.2.1", "2001:db8::1"):
        _answered(check_mail_from(client, "helo.example", "a.b@sender.example", "mx.example", NOW), records)


def dkim(data: bytes) -> None:
    """A header, and behind a NUL the key's record."""
    header, _, record = data.partition(b"\0")
    verification = DkimVerification(read_header(header))
    hasher = BodyHasher(verification.wanted)
    hasher.update(b"Hello\r\n")
    _answered(verification.verify(hasher.finish(), NOW), (record.decode("utf-8", "surrogateescape"),))


def arc(data: bytes) -> None:
    """A header with a chain, and behind a NUL the key's record; and the fields that claim to be results."""
    header, _, record = data.partition(b"\0")
    fields = read_header(header)
    verification = ArcVerification(fields)
    hasher = BodyHasher(verification.wanted)
    hasher.update(b"Hello\r\n")
    _answered(verification.verify(hasher.finish()), (record.decode("utf-8", "surrogateescape"),))
    collected_results(fields, "mx.example")
    spans = forged_spans(header, {"mx.example"})
    if any(length <= 0 or not 0 <= offset < len(header) for offset, length in spans):
        raise AssertionError(f"{spans} are no spans of the header")


def dmarc(data: bytes) -> None:
    """A header, and behind a NUL the records of its author's domain, one in each line."""
    header, _, records = data.partition(b"\0")
    answers = tuple(line.decode("utf-8", "surrogateescape") for line in records.split(b"\n"))
    _answered(check_dmarc(read_header(header), None, ()), answers)


def _answered(asking: Asking[Any], records: tuple[str, ...]) -> None:
    answer = DnsAnswer(Known.EXISTS, records)
    try:
        questions = next(asking)
        for _ in range(MOST_ROUNDS):
            questions = asking.send((answer,) * len(questions))
    except StopIteration:
        return
    raise AssertionError("it asks without an end")


class _Parts:
    """Notes where each part is, and decodes it."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int, str, tuple[str, ...]]] = []
        self._decoder = decoder_for("")

    def part(self, part: Part) -> bool:
        self.places.append((part.depth, part.body, part.type, part.names))
        self._decoder = decoder_for(part.encoding)
        return True

    def body(self, part: Part, piece: bytes) -> None:
        self._decoder.feed(piece)

    def ended(self, part: Part) -> None:
        self._decoder.finish()

    def uuencoded(self, file: Uuencoded) -> None: ...

    def defect(self, defect: Defect) -> None: ...


def mime(data: bytes) -> None:
    """A message: its parts are the same in one piece as in many; the first octet says how large they are."""
    size, message = (data[0] or 1) if data else 1, data[1:]
    whole, parts = _parts(message, len(message) or 1), _parts(message, size)
    if whole != parts and max(map(len, message.split(b"\r\n"))) < LONG_LINE:
        raise AssertionError(f"in pieces {parts}, in one {whole}")
    decode_words(message.decode("utf-8", "surrogateescape"))


def _parts(message: bytes, size: int) -> list[tuple[int, int, str, tuple[str, ...]]]:
    visitor = _Parts()
    walker = Walker(visitor, max_depth=5, max_parts=50)
    for start in range(0, len(message), size):
        walker.feed(message[start : start + size])
    walker.finish()
    return visitor.places


def access_file(data: bytes) -> None:
    """An access table in both of its forms."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return  # refused before (backends/access_file.py)
    for name in ("access", "access.yaml"):
        with contextlib.suppress(AccessError):
            AccessTable(read_table(text, name))


def proxy_header(data: bytes) -> None:
    """The PROXY protocol, both versions."""
    for parse in (
        proxy_protocol.parse_v1,
        lambda octets: proxy_protocol.parse_v2(
            octets[: proxy_protocol.V2_FIXED], octets[proxy_protocol.V2_FIXED :]
        ),
    ):
        with contextlib.suppress(proxy_protocol.ProxyError):
            parse(data)


def xtext(data: bytes) -> None:
    """ENVID, ORCPT and the values of XCLIENT."""
    text = data.decode("utf-8", "surrogateescape")
    for decode in (decode_xtext, decode_utf8_address):
        with contextlib.suppress(XtextError):
            decode(text)


def sasl_responses(data: bytes) -> None:
    """The response to AUTH."""
    with contextlib.suppress(sasl.SaslError):
        sasl.plain(data)
    with contextlib.suppress(sasl.SaslError):
        sasl.plain(sasl.decode(data))


def scanner_replies(data: bytes) -> None:
    """What clamd and rspamd answer."""
    errors = (ScannerUnavailable, ScannerRefused)
    with contextlib.suppress(*errors):
        scanner_clamd.read_reply(data.decode("utf-8", "replace"), "tcp://scanner")
    with contextlib.suppress(*errors):
        scanner_rspamd.read_reply(200, data, "http://scanner")


TARGETS: Final[dict[str, Target]] = {
    "commands": commands,
    "addresses": addresses,
    "data_reader": data_reader,
    "bdat": bdat,
    "dns_answers": dns_answers,
    "spf": spf,
    "dkim": dkim,
    "arc": arc,
    "dmarc": dmarc,
    "mime": mime,
    "access_file": access_file,
    "proxy_header": proxy_header,
    "xtext": xtext,
    "sasl_responses": sasl_responses,
    "scanner_replies": scanner_replies,
}
