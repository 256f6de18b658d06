"""What the statuses of a delivery mean (RFC 3463), ours and the usual ones of other hosts: see core/meanings.py."""

from __future__ import annotations

from typing import Final

from gatepost.core.meanings import Meaning

DELIVERY: Final[dict[str, Meaning]] = {
    # enhanced code -> what it means in a notification, in `gatepost trace` and in `gatepost queue`
    "4.1.8": Meaning(
        "The sender's address cannot be answered at the moment.", "Nothing.", "See the reply of the next hop."
    ),
    "4.2.1": Meaning(
        "The mailbox cannot take mail at the moment.", "Nothing: it is tried again.", "Look at the mailbox server."
    ),
    "4.2.2": Meaning("The mailbox is full.", "Nothing: it is tried again.", "Tell the user, or raise the quota."),
    "4.3.0": Meaning(
        "Something of ours or of the next hop failed for the moment.",
        "Nothing: it is tried again.",
        "The log line of the id has the reason.",
    ),
    "4.3.1": Meaning(
        "A disk is full.",
        "Nothing: it is tried again.",
        "Free the disk that `gatepost queue list` names.",
    ),
    "4.3.2": Meaning(
        "The next hop takes no mail at the moment.",
        "Nothing: it is tried again.",
        "If it lasts, ask there.",
    ),
    "4.4.0": Meaning(
        "The network or a route fails for the moment.", "Nothing: it is tried again.", "See the log line of the id."
    ),
    "4.4.1": Meaning(
        "No host answered: connections are refused or time out.",
        "Nothing: it is tried again.",
        "Look at `gatepost queue list`: one destination is their fault, all are ours (firewall on port 25).",
    ),
    "4.4.2": Meaning(
        "The connection broke, or an answer did not come in time.",
        "Nothing: it is tried again, and may then arrive twice.",
        "Of one destination again and again: MTU, or a firewall in between.",
    ),
    "4.4.3": Meaning(
        'DNS did not answer (a failure, not a "does not exist").',
        "Nothing: it is tried again.",
        "Of all domains: look at the resolver (`dns.servers`).",
    ),
    "4.4.4": Meaning(
        "No way to the next hop is known: its hosts have no address.",
        "Nothing: it is tried again.",
        "For routes of yours: correct the host names.",
    ),
    "4.4.5": Meaning(
        "The destination is busy; the mail waits in a retry tier.", "Nothing.", "`relay.connectionsPerSite`."
    ),
    "4.4.6": Meaning("The route leads back to us.", "Nothing.", "Correct the route or the MX."),
    "4.4.7": Meaning(
        "It was tried for `retry.expireAfter` without success; the last reply stands behind.",
        "Send it again later, or use another way.",
        "The last reply is the reason. `outbound.retry.expireAfter` says how long we try.",
    ),
    "4.5.0": Meaning(
        "The next hop answered something that is no SMTP.",
        "Nothing: it is tried again.",
        "Another service listens there, or a firewall changes the session.",
    ),
    "4.5.3": Meaning("Too many recipients for one message there.", "Nothing: it is tried again.", "Nothing."),
    "4.7.0": Meaning(
        "The next hop refuses for the moment, by its policy (greylisting, reputation).",
        "Nothing: it is tried again.",
        "If it lasts: is our address on a block list; do PTR, SPF and DKIM fit?",
    ),
    "4.7.4": Meaning(
        "TLS is required towards this host, and it offers none.",
        "Nothing: it is tried again.",
        "Ask its administrator, or relax the policy for it.",
    ),
    "4.7.5": Meaning(
        "TLS could not be begun: certificate or protocol.",
        "Nothing: it is tried again.",
        "See the text: expired certificate, wrong name, or no common version.",
    ),
    "5.0.0": Meaning("Refused for good; the next hop gave no code.", "Read its text.", "Read its text."),
    "5.1.1": Meaning(
        "No such mailbox.", "Check the address.", "Does the directory know it? Did it move while the mail waited?"
    ),
    "5.1.2": Meaning(
        "The recipient's domain does not exist, or has no mail host.", "Check the part behind the @.", "Nothing."
    ),
    "5.1.3": Meaning("The address cannot be one.", "Check the address.", "Nothing."),
    "5.1.10": Meaning(
        "The domain says that it takes no mail (null MX, RFC 7505).", "Use another address.", "Nothing."
    ),
    "5.2.0": Meaning("The mailbox refuses for good.", "Ask the recipient.", "Look at the mailbox server's log."),
    "5.2.1": Meaning("The mailbox is switched off.", "Ask the recipient.", "Enable the entry in the directory."),
    "5.2.2": Meaning("The mailbox is full, for good.", "Ask the recipient.", "Raise the quota."),
    "5.3.0": Meaning(
        "The system refuses for good.", "Ask the recipient.", "The log line of the id has the reason."
    ),
    "5.3.4": Meaning(
        "The message is larger than the next hop takes.", "Send it smaller.", "Nothing, if it is a foreign host."
    ),
    "5.4.1": Meaning("The host does not answer for this recipient.", "Ask the recipient.", "See the log line."),
    "5.4.4": Meaning("There is no route.", "Check the address.", "Correct the route of the domain."),
    "5.4.6": Meaning(
        "The address leads in a circle: aliases or forwardings point to each other.",
        "Tell the recipient's administrator.",
        "Follow aliases, groups and mailRoutingAddress of the address; or MX and routes.",
    ),
    "5.4.7": Meaning("Given up after the time allowed.", "Send it again later.", "See the last reply."),
    "5.6.0": Meaning(
        "The content is broken in a way that cannot be sent on.", "Use another mail program.", "Nothing."
    ),
    "5.6.3": Meaning(
        "The message has 8-bit content, and the next hop takes 7-bit only.",
        "Send it encoded (quoted-printable or base64).",
        "Ask the next hop's administrator for 8BITMIME.",
    ),
    "5.6.7": Meaning(
        "An address is internationalised, and the next hop does not know SMTPUTF8 (RFC 6531).",
        "Use an ASCII address.",
        "Ask the next hop's administrator for SMTPUTF8.",
    ),
    "5.7.0": Meaning("The next hop refuses by its policy.", "Read its text.", "Read its text."),
    "5.7.1": Meaning(
        "The next hop refuses by its policy: sender, content or reputation.",
        "Read its text.",
        "Is our address on a block list; do PTR, SPF and DKIM fit?",
    ),
}
