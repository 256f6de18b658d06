"""What every check means: for the administrator, for the sender, and what to do.

docs/replies.md is written from this table and core/reply_meanings.py, `gatepost meaning` prints it, and a test
fails when a check or a reply is missing.
"""

from __future__ import annotations

from typing import Final

import msgspec


class Meaning(msgspec.Struct, frozen=True):
    """One check, or one status of a delivery. `cause`: what was found; then what each of them can do."""

    cause: str
    sender: str
    administrator: str


CHECKS: Final[dict[str, Meaning]] = {
    # -- the connection
    "configuration": Meaning(
        "The process has no policy yet: it just started, or no configuration was ever published.",
        "Nothing: the sending server tries again by itself.",
        "If it lasts: does the operator run, or was `gatepost publish` run? /readyz says what is missing.",
    ),
    "log": Meaning(
        "The log (Kafka or the disk of the embedded log) does not confirm, so nothing can be accepted durably.",
        "Nothing: the mail is kept by the sending server, which tries again.",
        "Look at gatepost_log_available and the line log.waits; mend Kafka or free the disk. No mail is lost.",
    ),
    "draining": Meaning(
        "This process is shutting down for a restart or an upgrade.",
        "Nothing: the next connection reaches another process, or this one when it is back.",
        "Nothing, if a restart was meant.",
    ),
    "sessions": Meaning(
        "As many sessions are open as the process allows in all (`limits.sessions`).",
        "Try again later; open fewer connections at a time.",
        "More edge pods, or a higher limit if memory allows; see who connects in gatepost_edge_sessions_open.",
    ),
    "total-concurrent": Meaning(
        "As many sessions are open as the listener's policy allows (`connection.total.concurrent`).",
        "Try again later.",
        "Raise the limit, or find out who holds the sessions (log field `client`).",
    ),
    "per-host-concurrent": Meaning(
        "One address has as many sessions open as the policy allows (`connection.perHost.concurrent`).",
        "Open fewer connections at a time; a mail server does this by itself.",
        "Raise the limit for a partner who needs more, or leave it: it protects all the others.",
    ),
    "connection": Meaning(
        "The client's address or confirmed host name is in `connection.deny`.",
        "Write to postmaster at the recipient's domain, which is taken from everybody, if this is an error.",
        "Remove the rule, or add a more specific one to `connection.allow`. 450: a name in `connection.allow` "
        "could "
        "decide otherwise, and the DNS does not answer.",
    ),
    "per-network-concurrent": Meaning(
        "One network has as many sessions open as the policy allows (`connection.perNetwork.concurrent`).",
        "Open fewer connections at a time; your neighbours share the limit with you.",
        "Raise the limit, narrow the prefixes, or put a partner into `connection.allow`.",
    ),
    "per-host-rate": Meaning(
        "One address connects more often than `connection.perHost.ratePerMinute`.",
        "Send several messages over one connection; try again in a minute.",
        "Raise the limit, or put a partner into `connection.allow`. Refused attempts count too.",
    ),
    "recipients-without-message": Meaning(
        "A session names recipients and sends no message (`connection.recipientsWithoutMessage`).",
        "Send a message to the recipients that were taken; asking whether addresses exist is not what RCPT is for.",
        "Somebody collects addresses, or verifies senders by call-back. Raise the limit only for a known partner.",
    ),
    "reverse-dns": Meaning(
        "The client's address has no name in the DNS, or one that does not lead back (`connection.reverseDNS`).",
        "Ask your provider to set the PTR record of your address, and give that name the same address.",
        "Many honest servers have none: consider Tag. 451: the DNS did not answer (`reverseDNS.onError`).",
    ),
    "helo-syntax": Meaning(
        "The client greeted with what is no host name and no address literal (`helo.checks`, Syntax).",
        "Set your mail server's name to a full host name, as mail.example.org.",
        "See the log line `judged` for how often honest clients do this before you refuse.",
    ),
    "helo-own-name": Meaning(
        "The client greeted with this server's own name or address, or a domain served here (OwnName).",
        "Set your mail server's name to its own.",
        "Nearly always a spam program; a host of yours that does it belongs into `relay.clients`.",
    ),
    "helo-literal": Meaning(
        "The client greeted with an IP address that is not its own (Literal).",
        "Set your mail server's name to a full host name.",
        "Behind address translation an honest client may do this: look at the log before you refuse.",
    ),
    "helo-resolves": Meaning(
        "The name in the greeting has neither an address nor an MX in the DNS (Resolves).",
        "Publish an address for your mail server's name.",
        "See the log line `judged` first. 451: the DNS did not answer and `helo.onError` is Tempfail.",
    ),
    "helo-matches-client": Meaning(
        "Neither the greeting's addresses nor those of its MX hosts are the client's address (MatchesClient).",
        "Greet with a name whose address is the one you send from.",
        "RFC 5321 4.1.4 advises against refusing for this alone; Tag is meant for it. 451: the DNS did not answer.",
    ),
    "dnsbl": Meaning(
        "Lists in the DNS name the client's address, its greeting or its sender's domain (`dnsbl`).",
        "Ask the list that the reply names for your removal; write to postmaster at the recipient's domain "
        "meanwhile.",
        "The event `judged` has each list's answer. Put the client into `connection.allow`, lower a weight or "
        "raise "
        "`dnsbl.threshold`. 451: a list with `onError: Tempfail` does not answer.",
    ),
    "sender-domain": Meaning(
        "The sender's domain has no MX and no address, or says that it takes no mail "
        "(`senders.unresolvableDomain`).",
        "Use a sender address whose domain exists and can be answered.",
        "Programs of yours that send so belong into `relay.clients`. 451: the DNS did not answer.",
    ),
    "ban": Meaning(
        "The client's network is kept away for a while: it named too many unknown recipients, failed to log in too "
        "often, wrote to a spam trap, or an administrator banned it.",
        "Nothing: your server tries again, and the ban ends by itself. Clean your list of recipients meanwhile.",
        "`gatepost bans list` has the cause and the session's id, `gatepost bans remove` lifts it. Put a partner "
        "into `connection.allow`.",
    ),
    "spam-trap": Meaning(
        "The message names an address that was planted for collectors of addresses (`spamTraps`), or such a "
        "message was sent by this sender before.",
        "Remove addresses from your lists that nobody gave to you; write to postmaster if it is an error.",
        "The event `verdict` names the trap and the sender. `gatepost bans list` shows what it led to; a partner "
        "belongs into `connection.allow`, which is never banned.",
    ),
    "message-rate": Meaning(
        "More messages than `recipients.rates` allows went to this mailbox, came from this sender or from this "
        "network within the window.",
        "Nothing: your server tries again. If you send to very many, send more slowly.",
        "The code tells which: 4.2.1 the mailbox, 4.7.1 the sender or the client, as the text says. A list server "
        "belongs into `connection.allow`; else it may be an attack on one mailbox.",
    ),
    "routed-address": Meaning(
        "The address has a route in it: a source route, `%` or `!` (`senders.addresses`).",
        "Write to the address itself, without a route.",
        "Old software, or somebody who looks for an open relay. Nothing is ever routed by such an address here.",
    ),
    "local-sender": Meaning(
        "The sender's domain is served here, and the client is a stranger (`senders.spoofedLocal`) or there is no "
        "such address (`senders.localMustExist`).",
        "Log in at your own mail server to send; check the sender's address in your mail program.",
        "A service that sends in your domain's name belongs into its SPF record, or gets a login. 451: the "
        "directory did not answer.",
    ),
    "greylist": Meaning(
        "This network, sender and recipient have not met before (`recipients.greylist`), or the client came back "
        "before the seconds that the reply names were over.",
        "Nothing: your server tries again by itself, and the next messages are not delayed.",
        "Meant. A sender that comes back from ever other networks belongs into `connection.allow`.",
    ),
    "early-talker": Meaning(
        "The client spoke before our greeting, which no mail server does (RFC 5321 3.1).",
        "Use a mail program or server that waits for the greeting.",
        "Nearly always a spam program. A scanner or health check that does so should only connect.",
    ),
    "idle-timeout": Meaning(
        "The client sent no command for the time allowed (5 minutes unless the policy says otherwise).",
        "Try again; if it happens always, look at the network between (MTU, firewalls).",
        "Single ones are normal. Very many: an attack that holds connections; shorten `connection.idleTimeout`.",
    ),
    "minimum-rate": Meaning(
        "The message came slower than `limits.minimumBytesPerSecond` for a minute.",
        "Try again over a better line.",
        "Nothing, unless a partner's line is that slow; then lower the limit.",
    ),
    "errors": Meaning(
        "Too many commands of the session were refused (`recipients.errorsBeforeDisconnect`).",
        "Clean the list of recipients: the replies before this one say which do not exist.",
        "Often somebody guesses addresses; an alarm `unknown-recipients` tells from how many on.",
    ),
    "deferrals": Meaning(
        "Too many commands of the session could not be decided at the moment, one after the other.",
        "Nothing: the sending server tries again later.",
        "See which check answered 4xx before: usually a directory that is away.",
    ),
    "junk-commands": Meaning(
        "The client sent too many commands that lead nowhere (NOOP, RSET, VRFY and the like) without sending mail.",
        "Send mail, or close the connection.",
        "A probe or an attack that holds connections. A monitor should say QUIT after its check.",
    ),
    "auth-failures": Meaning(
        "Three logins failed in one session.",
        "Check name and password in the mail program, then connect again.",
        "Many of them: somebody guesses passwords; see the alarm `auth-failures`.",
    ),
    "policy-changed": Meaning(
        "A right that this session used (login, relaying) is not in the new policy.",
        "Connect again; if it stays refused, ask the administrator.",
        "Meant, when a policy was changed. Else see `gatepost check` and the object's conditions.",
    ),
    "internal": Meaning(
        "A fault of the program. The client keeps the mail.",
        "Nothing: the sending server tries again.",
        "The log has a line `internal error` with a traceback: please report it.",
    ),
    # -- command lines
    "syntax": Meaning(
        "A command is not known, or not written as RFC 5321 4.1 says.",
        "Use a mail program or server that follows the standard; by hand: check spelling and angle brackets.",
        "Single ones are people and scanners. Of a partner's server: tell them the line in the log.",
    ),
    "line-length": Meaning(
        "A command line is longer than RFC 5321 4.5.3.1 allows.",
        "As for `syntax`; very long addresses cannot be used.",
        "Usually an attack on another server's weakness.",
    ),
    "bare-newline": Meaning(
        "A line has a CR or LF alone, or a NUL: a way to smuggle a second message past a server (RFC 5321 2.3.8).",
        "Let the sending program write CR LF at every line's end.",
        "For an own device that cannot: name its network in `smtp.normalizeNetworks`. Never for the world.",
    ),
    "wrong-protocol": Meaning(
        "The client speaks HTTP: a browser was led here, or a scanner came by.",
        "Nothing: this is not a web server.",
        "Nothing.",
    ),
    "helo": Meaning(
        "The name in HELO or EHLO is missing or holds characters that no name has.",
        "Set the host name of the sending machine.",
        "For own devices: give them a host name.",
    ),
    "sequence": Meaning(
        "The commands came in an order in which they make no sense (RFC 5321 4.1.4).",
        "Use a mail program that follows the standard. After a refused MAIL or RCPT the rest is refused too: "
        "the first refusal is the reason.",
        "Look at the refusal before it in the same session (same id).",
    ),
    "pipelining": Meaning(
        "The client sent on without waiting where it had to (RFC 2920 3.1).",
        "Use a mail program that waits for the replies.",
        "Nearly always a spam program.",
    ),
    # -- TLS and AUTH
    "tls": Meaning(
        "Encryption is required here and was not begun, or STARTTLS came where it cannot be.",
        "Switch on STARTTLS (or TLS) in the mail program.",
        "By `tls.mode: Require`. On a public MX it locks out servers without TLS.",
    ),
    "starttls-injection": Meaning(
        "Commands were sent in clear behind STARTTLS: an attack by somebody on the line (CVE-2011-0411), or a bug.",
        "Try again; if it stays, the network in between changes what is sent.",
        "Of one client again and again: its software or a middlebox is broken.",
    ),
    "auth": Meaning(
        "Login is needed, not possible here, not encrypted, or was refused. Wrong passwords and unknown names get "
        "the same answer.",
        "Check server name, port 587 with STARTTLS, full login name and password.",
        "The metric gatepost_edge_auth_total says which: NothingStored is a hash that the mechanism cannot use, "
        "MechanismTooWeak an account with `attributes.secureLogin`, LoginDisabled one with `loginEnabled` off.",
    ),
    "xclient": Meaning(
        "A trusted proxy said by XCLIENT whose session it passes on, in a way or at a time that cannot be.",
        "Nothing: the proxy's administrator has to look at it.",
        "Compare the proxy's log; a login must be an address that the directory knows and that may log in.",
    ),
    "sender-match": Meaning(
        "The login may not send as this sender address (`relay.authenticated.senderMatch`).",
        "Choose an own address as sender in the mail program.",
        "Add the address to the user's entry, or choose senderMatch Domain.",
    ),
    # -- MAIL and RCPT
    "address": Meaning(
        "The address cannot be one: the text says what is wrong with it.",
        "Correct the address.",
        "Nothing.",
    ),
    "parameters": Meaning(
        "A parameter of MAIL or RCPT is not known, stands twice or has no valid value.",
        "Use only extensions that EHLO listed.",
        "Of a partner's server: it ignores our EHLO reply; tell them.",
    ),
    "smtputf8": Meaning(
        "An address has characters outside ASCII and the message was not declared SMTPUTF8 (RFC 6531).",
        "Use a mail program that knows internationalised addresses, or the ASCII form of the address.",
        "Nothing.",
    ),
    "size": Meaning(
        "The message is larger than the listener's or the recipient's domain's limit.",
        "Send it smaller, or share the file by a link.",
        "`smtp.limits.messageSize` of the policy and `recipients.maxMessageSize` of the domain.",
    ),
    "recipients": Meaning(
        "The message has more recipients than one message may have (`recipients.max`).",
        "Nothing: a mail server sends to the rest in another message. By hand: send to fewer at once.",
        "Raise the limit for list servers of your own.",
    ),
    "content-policy": Meaning(
        "The recipient's domain judges content by other rules than the first recipient's, and one reply is for all "
        "recipients of a message.",
        "Nothing: a mail server sends to this recipient again in another message.",
        "Nothing. Domains share messages whose policies judge header, content and authentication alike.",
    ),
    "recipient": Meaning(
        "The recipient is unknown in a domain of ours, or switched off.",
        "Check the spelling of the address; ask the person by another way.",
        "Does the directory have the address (`directories.*.attributes.addresses`), and is the entry enabled?",
    ),
    "quota": Meaning(
        "The recipient's mailbox is full.",
        "Nothing: the sending server tries again for some days.",
        "Tell the user, or raise the quota in the directory.",
    ),
    "directory": Meaning(
        "The directory, or the next host that is asked (CallAhead), does not answer: is there such a recipient?",
        "Nothing: the sending server tries again.",
        "Look at the lines directory.waits and call_ahead.failed; mend LDAP or the host. Replicas in "
        "`directories.*.ldap.urls` help, a longer `cache.stale` for CallAhead.",
    ),
    "access": Meaning(
        "A rule of the policy's `access` names the client, its greeting, the sender or the recipient.",
        "Write to the postmaster of the domain by another way, if this should be a mistake.",
        "The event and the log line `judged` name the rule (rule, origin). A rule for the recipient with action "
        "Accept exempts it.",
    ),
    "access-table": Meaning(
        "A file with access rules could not be read since the start, and without it nothing may be taken.",
        "Nothing: the sending server tries again.",
        "The log line access.refused has file, line and reason; or set `access.tables[].onError: Ignore`.",
    ),
    "source-route": Meaning(
        "The address has a route (@a,@b:user@c), an old way to relay through others (RFC 5321 appendix C).",
        "Use the address without a route.",
        "Nothing: only relay tests and spam programs do this.",
    ),
    "relay": Meaning(
        "The recipient's domain is not ours, and the client may not send on through us.",
        "In a mail program: log in (port 587). For a server: you reached the wrong host; check the domain's MX.",
        "A served domain needs a MailDomain, a friend's one `relay.secondaryFor`; own clients AUTH, or "
        "`relay.clients` (network and sender domain): docs/relaying.md.",
    ),
    # -- the message
    "header-size": Meaning(
        "The message's header is larger than `smtp.limits.headerBytes`.",
        "Put fewer addresses into To and Cc.",
        "Nothing, unless a system of yours writes such headers.",
    ),
    "spf": Meaning(
        "The sender's domain does not let the client send for it (SPF, `authentication.spf`).",
        "Send through the mail server of your own domain, or add your server to the domain's SPF record.",
        "Forwarded mail fails too: Tag is safer than Reject. The line `judged` has the term that decided. 451: the "
        "DNS did not answer and `tempError` is Tempfail.",
    ),
    "dkim": Meaning(
        "The message has DKIM signatures and none of them is good (`authentication.dkim`).",
        "See whether something behind your signer changes messages, and whether the key's record is complete.",
        "Mailing lists break signatures: Accept is what RFC 6376 6.1 advises. 451: a key could not be looked up.",
    ),
    "dmarc": Meaning(
        "Neither SPF nor DKIM stands behind the domain in From, which asks for a refusal (`authentication.dmarc`).",
        "Send through your domain's own servers; the domain's administrator must sign mail or list its servers.",
        "A list that changed a message? Put its domain into `arc.trustedSealers`, or use Quarantine, not Reject. "
        "451: the DNS did not answer and `tempError` is Tempfail.",
    ),
    "header-rule": Meaning(
        "A field of the message's header matches a rule of the administrator (`headers`), or lacks what one wants.",
        "Change the field that the reply is about, as a rule the subject, and send the message again.",
        "The line `judged` names the rule and shows what was found. Use Tag first, and watch how often honest mail "
        "has it.",
    ),
    "charset": Meaning(
        "A header or text is declared or written in a character set that is not among `charset.allowed`, or is not "
        "what it is declared to be.",
        "Write in one of the character sets that are allowed here; no half-width kana, circled digits or Roman "
        "numerals as one character.",
        "The line `judged` says where and what. Many mail programs write UTF-8 in any case: use Tag first.",
    ),
    "attachment": Meaning(
        "A file in the message, or in an archive in it, has a name that is not taken (`attachments`, presets of "
        "`headers`), an archive cannot be looked into, or the MIME structure is broken.",
        "Send the file another way, or in an archive that is not encrypted; 5.6.0: with another mail program.",
        "The line `judged` has rule, file name, part and archive. `opaque` and `malformed` have their own actions.",
    ),
    "authentication-results": Meaning(
        "The message has over a hundred Authentication-Results fields that pretend to be this server's.",
        "Remove them; no mail server writes so many.",
        "An attempt to forge, or a loop: see its Received fields.",
    ),
    "loop": Meaning(
        "The message has passed so many servers that it must be going in a circle (RFC 5321 6.3).",
        "Tell the recipient's administrator: a forwarding leads back.",
        "Follow its Received lines: two servers forward to each other, or a domain's route leads back here.",
    ),
    "nul": Meaning(
        "The message has a NUL byte, which no mail may have (RFC 5322 2.2).",
        "Send it with another mail program; attachments must be encoded (base64).",
        "A broken sending program.",
    ),
    "memory": Meaning(
        "So many large messages come at once that there is no room for another (`limits.memoryForBodies`).",
        "Nothing: the sending server tries again.",
        "More edge pods, or more memory and a higher limit.",
    ),
    # -- scanners
    "spam": Meaning(
        "rspamd advised against the message (`scanners`), or could not be asked and its `onError` is Tempfail.",
        "Write to postmaster at the recipient's domain, who can look it up by the id; 451: it is tried again.",
        "The event `judged` has score and symbols. Change weights at rspamd, or what follows in "
        "`scanners.actions`. Many 451: the line `not scanned` says what is wrong with the scanner.",
    ),
    "virus": Meaning(
        "clamd knows malware in the message (`scanners`), or could not be asked and its `onError` is Tempfail.",
        "Look at the machine that wrote the message. If it is a false alarm, write to postmaster at the "
        "recipient's domain.",
        "The event `judged` has the signature's name. Many 451: is clamd there, are its signatures loaded, are "
        "MaxThreads and StreamMaxLength large enough? The line `not scanned` says what it answered.",
    ),
}
