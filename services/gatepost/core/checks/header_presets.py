"""Header rules and file names that every administrator wants and nobody should write anew, by name.

None acts before a policy names it, and each only tags until the policy says more (the sources' own advice: tell the
users before a filter refuses, for all of them hit honest mail at times).
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.manifest.policy_content import HeaderPreset

_AUTHORS: Final = ("from", "sender", "reply-to", "to", "cc", "return-path", "resent-from", "resent-to")


class Preset(msgspec.Struct, frozen=True):
    """`pattern` is looked for in `fields`, or in the names of attached files where there are no fields.

    Several patterns are one rule each. `text` is what a refused sender reads.
    """

    patterns: tuple[tuple[tuple[str, ...], str], ...]
    text: str


_FILES: Final[tuple[str, ...]] = ()

PRESETS: Final[dict[HeaderPreset, Preset]] = {
    HeaderPreset.ADVERTISEMENT: Preset(
        ((("subject",), r"^\s*(?:ADV?\s*:|ADVERTISEMENT)"),), "advertisements are not taken here"
    ),
    HeaderPreset.MESSAGE_ID_WITHOUT_AT: Preset(
        ((("message-id",), r"^[^@]*$"),), "the Message-ID is not valid (RFC 5322 3.6.4)"
    ),
    # <a%b@c>, <a!b>, <@a:b@c>, and the same without angle brackets; "50% off <a@b>" and "Hello! <a@b>" are none.
    HeaderPreset.ROUTE_ADDRESS: Preset(
        (
            (
                _AUTHORS,
                r"<\s*@|<[^<>@\"\s]*[%!][^<>\s]*>|(?:^|,)\s*@|(?:^|,)\s*[^\s<>@\",;:()]*[%!][^\s<>@\",;:()]*@"
                r"|(?:^|,)\s*[^\s<>@\",;:()]+![^\s<>@\",;:()]+\s*(?:,|$)",
            ),
        ),
        "addresses with a route (%, ! or @a:b@c) are not taken here",
    ),
    HeaderPreset.CONSECUTIVE_SPACES: Preset(
        ((("subject",), r"[ \t\x{a0}\x{3000}]{8,}"),), "a subject with a gap is not taken here"
    ),
    HeaderPreset.EXE_ATTACHMENT: Preset(((_FILES, r"\.exe$"),), "files with the extension .exe are not taken here"),
    HeaderPreset.VBS_ATTACHMENT: Preset(
        ((_FILES, r"\.vb[se]$"),), "files with the extensions .vbs and .vbe are not taken here"
    ),
    HeaderPreset.LOVELETTER: Preset(
        (
            (("subject",), r"^\s*ILOVEYOU\s*$"),
            (_FILES, r"^love-letter-for-you\.(?:txt\.vbs|htm)$|\.txt\.vbs$"),
        ),
        "this message looks like the worm Loveletter",
    ),
    HeaderPreset.MELISSA: Preset(
        ((("subject",), r"^\s*Important Message From\b"), (_FILES, r"^list\.doc$")),
        "this message looks like the worm Melissa",
    ),
    HeaderPreset.HAPPY99: Preset(
        ((("x-spanska",), r"^\s*Yes"), (_FILES, r"^happy99\.exe$")), "this message looks like the worm Happy99"
    ),
    HeaderPreset.PAPA: Preset(
        (
            (("subject",), r"^\s*(?:Fwd:\s*)?Workbook from all\.net and Fred Cohen"),
            (_FILES, r"^x?path?\.xls$|^xpass\.xls$"),
        ),
        "this message looks like the worm Papa",
    ),
}
