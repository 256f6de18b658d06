"""A content policy's rules, compiled: built when a configuration arrives, shared by policies with equal rules."""

from __future__ import annotations

from functools import lru_cache

from gatepost.core.checks.attachments import AttachmentPolicy, AttachmentTable
from gatepost.core.checks.charset import CharsetPolicy
from gatepost.core.checks.header_rules import HeaderRule, HeaderTable, header_table
from gatepost.core.configuration_content import ContentPolicy


class ContentTables:
    """`headers` judge a header, `charset` and `attachments` the whole message; None: nothing is asked."""

    def __init__(
        self, headers: HeaderTable | None, charset: CharsetPolicy | None, attachments: AttachmentTable | None
    ) -> None:
        self.headers, self.charset, self.attachments = headers, charset, attachments

    @property
    def searches(self) -> bool:
        """Whether more is looked at than the header."""
        return self.charset is not None or self.attachments is not None


def content_tables(policy: ContentPolicy) -> ContentTables | None:
    """The tables of a policy, None where it has no rules of this kind. Raises PatternError."""
    if not policy.headers and policy.charset is None and policy.attachments is None:
        return None
    return _tables(policy.headers, policy.charset, policy.attachments)


@lru_cache(maxsize=1024)
def _tables(
    headers: tuple[HeaderRule, ...], charset: CharsetPolicy | None, attachments: AttachmentPolicy | None
) -> ContentTables:
    return ContentTables(
        header_table(headers), charset, None if attachments is None else AttachmentTable(attachments)
    )
