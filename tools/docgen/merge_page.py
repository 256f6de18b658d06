"""docs/merge-table.md: what a domain's policy does to the listener's, from core/policy_merging.py."""

from __future__ import annotations

from gatepost.core.layers import VOIDS
from gatepost.core.manifest.policy_layers import Exemption
from gatepost.core.policy_merging import REMOVES, TABLE

INTRODUCTION = """\
# Layers of policy, and how they merge

A RelayPolicy whose target is a listener decides everything there. One whose target is MailDomains is a layer over
it: what is in force for these domains' recipients, at every listener, and also over a policy that stands beside the
listener's (a Shadow, a canary). Each target has one policy that is enforced and at most one beside it; the oldest
wins, and the status of the other says which that is. A domain's policy lies in the namespace of its MailDomains,
and sets only what it names: everything else is the listener's.

| rule | means |
|---|---|
| Replaces | the domain's value counts for its recipients |
| Appends | the listener's values count first, then the domain's |
| Tightens | the stricter of the two counts |
| ListenerOnly | a domain's policy that sets it is refused (Accepted=False, with the field) |
| Own | each policy has its own; nothing is merged |

A row counts for its field and all below it.

| field | rule | why, and how |
|---|---|---|
"""

EXEMPTIONS = """
## Exemptions

A domain's `exemptions` have an effect at listeners whose policy has them in `allowExemptions`.

| exemption | what it does for the domain's recipients |
|---|---|
"""

SHARING = """
## One message, one content policy

One reply is for all recipients of a message, so recipients whose domains judge content differently (authentication,
headers, character sets, attachments, scanners) cannot share one. The first recipient that is taken decides; others
get `452 4.5.3 ... (content-policy)` at RCPT, and the client sends to them again in another message (RFC 5321
4.5.3.1.10). Policies that judge content alike share messages, whatever else differs.

## Shadow and canary

`mode: Shadow` decides and records what it would have done with recipients and messages: events and log lines with
`mode=Shadow`, the metric `gatepost_edge_shadow`, and `gatepost trace`. It never acts, and nobody waits for what it
looks up. It does not judge limits of connections, rates, bans and logins, and does not ask whether a recipient
exists. Its greylisting reads what the enforced one remembers. A message that comes faster than its scanners take it
is not judged (`gatepost_edge_shadow_skipped`).

`rollout.percent` below 100 makes a canary: clients whose network (/24, /64) falls into that part by a hash of
network and policy are judged by it alone, all others by the policy in force. Raising the percentage keeps whoever
is in. At 100 it wants to be the policy in force: take the old one away first, or write its spec into the old one.
What is decided before anybody is named counts for canaries too, except that `connection.total` and
`tls.minVersion` are those of the policy in force.
"""


def merge_page() -> str:
    """The page, whole."""
    rows = [f"| `{path}` | {row.rule.value} | {row.reason} |" for path, row in TABLE.items()]
    exempt = [f"| {one.value} | {_effect(one)} |" for one in Exemption]
    return INTRODUCTION + "\n".join(rows) + "\n" + EXEMPTIONS + "\n".join(exempt) + "\n" + SHARING


def _effect(exemption: Exemption) -> str:
    if exemption in REMOVES:
        return f"the listener's `{REMOVES[exemption]}` does not count; what the domain sets itself does"
    checks = ", ".join(f"`{check}`" for check in sorted(VOIDS[exemption]))
    return f"verdicts of {checks} on the client have no effect"
