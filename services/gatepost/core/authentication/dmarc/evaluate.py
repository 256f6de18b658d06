"""The DMARC check of a message (RFC 9989 5.3): author domain, policy record, alignment, policy.

    result = yield from check_dmarc(read_header(header), spf, signatures)

`spf` is the result for MAIL FROM, `signatures` the DKIM results. Mail with several author domains is judged for
each, and the strictest policy among those that fail counts (11.5); an evaluation that cannot be done ends in
permerror, not in silence, so that a policy can refuse such a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gatepost.core.authentication.dkim.result import DkimSignatureResult, DkimStatus
from gatepost.core.authentication.dmarc.author import MAX_AUTHOR_DOMAINS, AuthorError, author_domains
from gatepost.core.authentication.dmarc.record import DmarcRecord, effective
from gatepost.core.authentication.dmarc.result import Alignment, DmarcPolicy, DmarcResult, DmarcStatus
from gatepost.core.authentication.dmarc.tree_walk import Walked, walk
from gatepost.core.authentication.names import dns_name
from gatepost.core.authentication.questions import Asking, Known, ask, together
from gatepost.core.authentication.spf.result import SpfIdentity, SpfResult, SpfStatus
from gatepost.core.headers import Field

# One walk each; more signatures of other domains prove nothing more about the author.
MAX_IDENTIFIERS: Final = 10

_MILDER: Final = {
    DmarcPolicy.REJECT: DmarcPolicy.QUARANTINE,
    DmarcPolicy.QUARANTINE: DmarcPolicy.NONE,
    DmarcPolicy.NONE: DmarcPolicy.NONE,
}
_STRICTNESS: Final = tuple(DmarcPolicy)


class Identifiers(msgspec.Struct, frozen=True):
    """The authenticated identifiers (3.2.1): domains that SPF or DKIM passed for, canonical. "" and (): none.

    `spf_failed`, `dkim_failed`: a check ended in temperror, and could have passed for any domain that it names.
    """

    spf: str = ""
    dkim: tuple[str, ...] = ()
    uncertain_spf: str = ""
    uncertain_dkim: tuple[str, ...] = ()


def check_dmarc(
    fields: tuple[Field, ...], spf: SpfResult | None, signatures: Sequence[DkimSignatureResult]
) -> Asking[DmarcResult]:
    """Judge a message by its From field and what SPF and DKIM gave."""
    try:
        authors = author_domains(fields)
    except AuthorError as error:
        return DmarcResult(DmarcStatus.PERMERROR, reason=error.reason)
    if len(authors) > MAX_AUTHOR_DOMAINS:
        return DmarcResult(DmarcStatus.PERMERROR, reason=f"more than {MAX_AUTHOR_DOMAINS} author domains")
    identifiers = identifiers_of(spf, signatures)
    results = yield from together([check_author(author, identifiers) for author in authors])
    worst = max(results, key=_severity)
    return msgspec.structs.replace(
        worst, other_authors=tuple(author for author in authors if author != worst.author_domain)
    )


def identifiers_of(spf: SpfResult | None, signatures: Sequence[DkimSignatureResult]) -> Identifiers:
    """4.4: SPF counts for MAIL FROM only, DKIM for d=."""
    spf_domain, spf_status = "", SpfStatus.NONE
    if spf is not None and spf.identity is SpfIdentity.MAIL_FROM:
        spf_domain, spf_status = dns_name(spf.domain) or "", spf.status
    by_status = {
        status: tuple(dict.fromkeys(one.domain for one in signatures if one.status is status))
        for status in (DkimStatus.PASS, DkimStatus.TEMPERROR)
    }
    return Identifiers(
        spf_domain if spf_status is SpfStatus.PASS else "",
        by_status[DkimStatus.PASS][:MAX_IDENTIFIERS],
        spf_domain if spf_status is SpfStatus.TEMPERROR else "",
        by_status[DkimStatus.TEMPERROR][:MAX_IDENTIFIERS],
    )


def check_author(author: str, identifiers: Identifiers) -> Asking[DmarcResult]:
    """Judge one author domain."""
    result = DmarcResult(DmarcStatus.NONE, author)
    walked = yield from walk(author)
    place, record = _applicable(walked)
    if record is None:
        if walked.failed:
            return msgspec.structs.replace(result, status=DmarcStatus.TEMPERROR, reason="no answer for the policy")
        return msgspec.structs.replace(result, reason="no DMARC record")
    policy = yield from _policy(record, place, author)
    result = msgspec.structs.replace(
        result,
        record_domain=place,
        organizational_domain=walked.organizational_domain,
        testing=record.testing,
        reporting=record.rua,
    )
    if policy is None:
        return msgspec.structs.replace(result, status=DmarcStatus.TEMPERROR, reason="no answer for the author")
    return (yield from _judged(result, policy, record, walked, identifiers))


def _applicable(walked: Walked) -> tuple[str, DmarcRecord | None]:
    """The record that applies and its domain: the author's own, its organization's, its suffix's (4.10.1)."""
    for domain in (walked.start, walked.organizational_domain, walked.suffix):
        record = walked.record_of(domain) if domain else None
        if record is not None:
            return domain, effective(record)
        # Which one is the organization is not known when the walk broke off.
        if walked.failed:
            break
    return "", None


def _policy(record: DmarcRecord, place: str, author: str) -> Asking[DmarcPolicy | None]:
    """p=, or sp= or np= below the record's domain (4.10.1); None when it hangs on an answer that failed."""
    policy = record.policy or DmarcPolicy.NONE
    if place == author:
        return policy
    for_existing = record.subdomain_policy or policy
    if record.non_existent_policy in (None, for_existing):
        return for_existing
    # 3.2.13: it does not exist when the DNS says NXDOMAIN, whatever is asked for (A.4).
    answer = yield from ask(author, "A")
    if answer.known is Known.FAILED:
        return None
    return record.non_existent_policy if answer.known is Known.NO_SUCH_DOMAIN else for_existing


def _judged(
    result: DmarcResult, policy: DmarcPolicy, record: DmarcRecord, walked: Walked, identifiers: Identifiers
) -> Asking[DmarcResult]:
    """Alignment (4.10.2) and what follows of it (5.3.5)."""
    candidates = [
        (identifiers.spf, record.strict_spf),
        *((domain, record.strict_dkim) for domain in identifiers.dkim),
    ]
    aligned = yield from together([_aligned(walked, domain, strict) for domain, strict in candidates])
    spf, *signatures = (alignment for alignment, _ in aligned)
    dkim = next((one for one in Alignment if one in signatures), None)
    result = msgspec.structs.replace(result, policy=policy, spf=spf, dkim=dkim)
    if spf is not None or dkim is not None:
        return msgspec.structs.replace(result, status=DmarcStatus.PASS, disposition=DmarcPolicy.NONE)
    uncertain = [
        (identifiers.uncertain_spf, record.strict_spf),
        *((domain, record.strict_dkim) for domain in identifiers.uncertain_dkim),
    ]
    possible = yield from together([_aligned(walked, domain, strict) for domain, strict in uncertain])
    # 5.3.6: without the answers the message neither passes nor fails.
    if any(failed for _, failed in aligned) or any(failed or one is not None for one, failed in possible):
        return msgspec.structs.replace(result, status=DmarcStatus.TEMPERROR, reason="no answer for alignment")
    disposition = _MILDER[policy] if record.testing else policy
    return msgspec.structs.replace(result, status=DmarcStatus.FAIL, disposition=disposition)


def _aligned(author: Walked, domain: str, strict: bool) -> Asking[tuple[Alignment | None, bool]]:
    """How an identifier aligns, and whether that is not known because a question failed."""
    if not domain:
        return None, False
    if domain == author.start:
        return Alignment.STRICT, False
    if strict:
        return None, False
    # Two names without a common top are of two organizations, whatever the walks would say.
    if domain.rpartition(".")[2] != author.start.rpartition(".")[2]:
        return None, False
    walked = yield from walk(domain)
    if walked.failed or author.failed:
        return None, True
    same = walked.organizational_domain == author.organizational_domain
    return (Alignment.RELAXED if same else None), False


def _severity(result: DmarcResult) -> tuple[int, int]:
    """Which of several authors' results counts: a failure by its strictness, then not knowing, then the rest."""
    order = (DmarcStatus.PASS, DmarcStatus.NONE, DmarcStatus.TEMPERROR, DmarcStatus.FAIL)
    strictness = _STRICTNESS.index(result.disposition) if result.disposition is not None else 0
    return order.index(result.status), strictness
