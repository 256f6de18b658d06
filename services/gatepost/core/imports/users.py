"""Users in bulk, as CSV, -> LDIF with hashed passwords: what another platform exports, a directory takes.

quotaBytes is read by a directory whose settings say `attributes: {quotaBytes: quotaBytes}`.

Columns by the header line: name (needed) and password; fullName, address (several: separated by blanks),
quotaBytes, enabled, loginEnabled as they please. Without a header line: name, password, full name.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterator
from typing import Final

from gatepost.core.address import AddressError, parse_address

COLUMNS: Final = ("name", "password", "fullname", "address", "quotabytes", "enabled", "loginenabled")
MAX_NAME: Final = 64  # a local part (RFC 5321 4.5.3.1.1); the documents' 31 fit
_NO: Final = frozenset({"no", "false", "0", "off", "n"})


class UsersError(ValueError):
    """The file cannot be used; the message names line and reason."""


def read_users(text: str) -> list[dict[str, str]]:
    """The rows, by lower-case column, each with `line`. Raises UsersError for the first fault."""
    rows = [(number, row) for number, row in _rows(text) if any(cell.strip() for cell in row)]
    if not rows:
        raise UsersError("the file has no users")
    header = [cell.strip().lower().replace("_", "").replace(" ", "") for cell in rows[0][1]]
    if "name" in header:
        unknown = [column for column in header if column not in COLUMNS]
        if unknown:
            raise UsersError(
                f"line 1: the columns {', '.join(unknown)} are not known; there are {', '.join(COLUMNS)}"
            )
        rows = rows[1:]
    else:
        header = ["name", "password", "fullname"]
    users: list[dict[str, str]] = []
    seen: set[str] = set()
    for number, row in rows:
        if len(row) > len(header):
            raise UsersError(f"line {number}: {len(row)} fields where {len(header)} are expected")
        user = {
            column: cell.strip() if column != "password" else cell
            for column, cell in zip(header, row, strict=False)
        }
        _check(user, number, seen)
        users.append(user)
    return users


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise UsersError(f"line {reader.line_num}: {error}") from None


def _check(user: dict[str, str], number: int, seen: set[str]) -> None:
    name = user.get("name", "")
    if not name or len(name) > MAX_NAME:
        raise UsersError(f"line {number}: a name of 1 to {MAX_NAME} characters is needed")
    if name.lower() in seen:
        raise UsersError(f"line {number}: {name!r} stands twice")
    seen.add(name.lower())
    quota = user.get("quotabytes", "")
    if quota and not quota.isdecimal():
        raise UsersError(f"line {number}: quotaBytes is a number of bytes, not {quota!r}")


def ldif_of(users: list[dict[str, str]], domain: str, hashed: Callable[[str], str]) -> Iterator[str]:
    """LDIF (RFC 2849) in pieces, one for each user; `hashed` makes the stored password. Raises UsersError."""
    base = ",".join(f"dc={label}" for label in domain.split("."))
    yield "version: 1\n"
    for user in users:
        yield "\n" + "".join(_attribute(name, value) for name, value in _entry(user, domain, base, hashed))


def _entry(user: dict[str, str], domain: str, base: str, hashed: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    name = user["name"]
    full = user.get("fullname") or name
    yield "dn", f"uid={_escape(name)},{base}"
    for kind in ("inetOrgPerson", "inetLocalMailRecipient"):
        yield "objectClass", kind
    yield "uid", name
    yield "cn", full
    yield "sn", full.split()[-1] if full.split() else full
    for address in (user.get("address") or name).split():
        try:
            yield "mailLocalAddress", str(parse_address(address if "@" in address else f"{address}@{domain}"))
        except AddressError as error:
            raise UsersError(f"user {name!r}: {address!r} is not an address: {error.reason}") from None
    if user.get("enabled", "").lower() in _NO:
        yield "employeeType", "disabled"
    if user.get("quotabytes"):
        yield "quotaBytes", user["quotabytes"]
    if user.get("password") and user.get("loginenabled", "").lower() not in _NO:
        yield "userPassword", hashed(user["password"])


def _escape(value: str) -> str:
    """An attribute value in a DN (RFC 4514 2.4)."""
    escaped = "".join(f"\\{c}" if c in ',+"\\<>;=' else c for c in value)
    return f"\\{escaped}" if escaped[:1] in (" ", "#") else escaped


def _attribute(name: str, value: str) -> str:
    """One line; base 64 where RFC 2849 asks for it."""
    if (
        value.isascii()
        and value.isprintable()
        and not value.startswith((" ", ":", "<"))
        and not value.endswith(" ")
    ):
        return f"{name}: {value}\n"
    return f"{name}:: {base64.b64encode(value.encode()).decode()}\n"
