"""What every check and every reply means: for the administrator, for the sender, and what to do.

docs/replies.md is written from these tables, `gatepost meaning` prints them, and a test fails when a check or a
reply is missing here.
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

REPLIES: Final[dict[str, str]] = {
    "IS_SPAM": "a scanner's advice has the action Reject (`scanners.actions`)",
    "IS_SPAM_YET": "a scanner's advice has the action Defer, as rspamd's soft reject",
    "SPAM_UNKNOWN": "the scanner did not answer and its `onError` is Tempfail",
    "IS_VIRUS": "clamd found malware and `actions.found` is Reject",
    "IS_VIRUS_YET": "the same with Defer",
    "VIRUS_UNKNOWN": "clamd did not answer and its `onError` is Tempfail",
    "UNSCANNABLE": "the message is above clamd's `maxSize` and `tooLarge` is Reject",
    "UNREADABLE": "the message is above rspamd's `maxSize` and `tooLarge` is Reject",
    # constant of the reply -> when exactly it is given
    "NO_CONFIGURATION": "to a new connection, or before a transaction, while no policy is loaded",
    "LOG_AWAY": "to a new connection while the log is known to be away",
    "DRAINING": "to new connections, and between two transactions, during a shutdown",
    "TOO_MANY_SESSIONS": "to a new connection above the process's limit",
    "TOTAL_CONCURRENT": "to a new connection above the listener's limit",
    "HOST_CONCURRENT": "to a new connection above the limit for one address",
    "EARLY_TALKER": "instead of the greeting, also when it was held back (`connection.bannerDelay`)",
    "NETWORK_CONCURRENT": "to a new connection above the limit for one network",
    "HOST_RATE": "to a new connection above the limit for one address in a minute",
    "NO_MESSAGE": "to RCPT; the connection is closed",
    "CLIENT_DENIED": "to RCPT, except for postmaster, abuse and hostmaster",
    "CLIENT_NAME_UNKNOWN": "to RCPT, when an allowed name could decide otherwise and the DNS does not answer",
    "NO_NAME": "to RCPT, by `reverseDNS.action` Reject",
    "NO_NAME_YET": "to RCPT, by `reverseDNS.action` Defer",
    "NOT_CONFIRMED": "to RCPT, by `reverseDNS.action` Reject",
    "NOT_CONFIRMED_YET": "to RCPT, by `reverseDNS.action` Defer",
    "REVERSE_UNKNOWN": "to RCPT, when the DNS did not answer",
    "HELO_NO_NAME": "to RCPT, by the test's action",
    "HELO_IS_OURS": "to RCPT, by the test's action",
    "HELO_NOT_YOURS": "to RCPT, by the test's action",
    "HELO_NOT_FOUND": "to RCPT, by the test's action",
    "HELO_NO_MATCH": "to RCPT, by the test's action",
    "HELO_RESOLVES_UNKNOWN": "to RCPT, when the DNS did not answer and `helo.onError` is Tempfail",
    "HELO_MATCH_UNKNOWN": "to RCPT, when the DNS did not answer and `helo.onError` is Tempfail",
    "LISTED": "to RCPT, by the action of the list; the list's `text` stands in place of this one",
    "LISTED_YET": "to RCPT, by the action Defer of the list",
    "LIST_AWAY": "to RCPT, when a list with `onError: Tempfail` gave no usable answer",
    "UNRESOLVABLE": "to RCPT, by `senders.unresolvableDomain` Reject",
    "UNRESOLVABLE_YET": "to RCPT, by `senders.unresolvableDomain` Defer",
    "SENDER_NULL_MX": "to RCPT, by `senders.unresolvableDomain` Reject",
    "SENDER_UNKNOWN": "to RCPT, when the DNS did not answer",
    "BANNED": "to a connection from a banned network, or to RCPT where a login could still help it",
    "TRAPPED": "at the end of the message, for all its recipients",
    "SENDER_BANNED": "to RCPT, from a sender that a spam trap has banned",
    "MAILBOX_FLOODED": "to RCPT, by `rates.perRecipient`",
    "SENDER_TOO_BUSY": "to RCPT, by `rates.perSender`",
    "CLIENT_TOO_BUSY": "to RCPT, by `rates.perClient`",
    "ROUTED": "to RCPT, by `senders.addresses` Reject",
    "ROUTED_SENDER": "to RCPT, by `senders.addresses` Reject",
    "SPOOFED": "to RCPT, by `senders.spoofedLocal` Reject",
    "SENDER_MISSING": "to RCPT, by `senders.localMustExist`",
    "SENDER_NOT_LOOKED_UP": "to RCPT, when the directory did not answer and `senders.localMustExist` is set",
    "GREYLISTED": "to RCPT, with the seconds to wait, when `recipients.greylist` is enabled",
    "IDLE": "when no command came in time; the connection is closed",
    "TOO_SLOW": "during the message; the connection is closed",
    "TOO_MANY_ERRORS": "behind the last refusal; the connection is closed",
    "TOO_MANY_DEFERRALS": "behind the last temporary refusal; the connection is closed",
    "TOO_MUCH_JUNK": "behind the last such command; the connection is closed",
    "AUTH_FAILURES": "behind the third failed login; the connection is closed",
    "RIGHT_REVOKED": "to the next command after the policy changed; the connection is closed",
    "INTERNAL": "whenever the program fails; the connection is closed",
    "UNKNOWN_COMMAND": "to a word that is no command of SMTP",
    "LINE_TOO_LONG": "to a command line above 512 octets (MAIL 1181, RCPT 1048, AUTH 12288)",
    "BARE_NEWLINE": "to a command line with a CR, LF or NUL inside; the connection is closed",
    "WRONG_PROTOCOL": "to GET, POST and the like; the connection is closed",
    "NOT_IMPLEMENTED": "to EXPN and, from hosts that are not trusted, XCLIENT",
    "NO_ARGUMENT": "to DATA, RSET, QUIT, STARTTLS with an argument",
    "ARGUMENT_NEEDED": "to VRFY without an argument",
    "HELO_SYNTAX": "to EHLO or HELO without a usable name",
    "HELO_FIRST": "to MAIL, RCPT, DATA before EHLO or HELO",
    "MAIL_FIRST": "to RCPT or DATA before an accepted MAIL",
    "RCPT_FIRST": "to DATA when every recipient was refused, or none was named",
    "NESTED_MAIL": "to a second MAIL in one transaction",
    "PIPELINING": "to a command that came before the reply to the one before",
    "OUT_OF_STEP": "behind PIPELINING; the connection is closed",
    "TLS_REQUIRED": "to MAIL or AUTH without TLS where the policy requires it",
    "TLS_NOT_AVAILABLE": "to STARTTLS where the listener has no certificate or the policy switched it off",
    "TLS_ALREADY": "to a second STARTTLS",
    "TLS_OUT_OF_PLACE": "to STARTTLS after AUTH or in a transaction",
    "TLS_INJECTION": "when commands lie behind STARTTLS; the connection is closed",
    "AUTH_REQUIRED": "to MAIL where only logged-in users may send",
    "AUTH_NOT_AVAILABLE": "to AUTH where the policy does not offer it",
    "AUTH_NEEDS_EHLO": "to AUTH or STARTTLS after HELO",
    "AUTH_NEEDS_TLS": "to AUTH in clear where it must be encrypted",
    "AUTH_ALREADY": "to a second AUTH after a successful one",
    "AUTH_IN_TRANSACTION": "to AUTH after MAIL",
    "AUTH_MECHANISM": "to AUTH with a mechanism that was not offered",
    "AUTH_SYNTAX": "to a response that is no base64, or not of the mechanism's form",
    "AUTH_CANCELLED": "when the client itself gave up with *",
    "AUTH_REFUSED": "wrong password, unknown name, login switched off: never which",
    "AUTH_UNAVAILABLE": "the directory does not answer; nothing is said of the password",
    "MAIL_SYNTAX": "to MAIL without FROM:<address>",
    "RCPT_SYNTAX": "to RCPT without TO:<address>",
    "UNKNOWN_PARAMETER": "to a parameter that EHLO did not offer, or any parameter after HELO",
    "PARAMETER_SYNTAX": "to a parameter without a valid value",
    "NEEDS_SMTPUTF8": "to an address outside ASCII without SMTPUTF8",
    "TOO_LARGE": "to MAIL with a declared SIZE, or at the end of the message",
    "RECIPIENT_TOO_LARGE": "to RCPT, by the declared SIZE and the limit of the recipient's domain",
    "OTHER_CONTENT_POLICY": "to RCPT, behind a recipient whose domain has other content rules; it is kept",
    "TOO_MANY_RECIPIENTS": "to each RCPT above the limit; those before it are kept",
    "SENDER_MISMATCH": "to MAIL after login, with an address that is not the login's",
    "HEADER_TOO_LARGE": "at the end of the message",
    "LOOP": "at the end of the message, by its number of Received fields",
    "SPF_FAILED": "to RCPT, by `spf.fail` or `spf.softFail` Reject; with the domain's own explanation",
    "SPF_FAILED_YET": "to RCPT, by `spf.fail` or `spf.softFail` Defer",
    "SPF_BROKEN": "to RCPT, by `spf.permError` Reject",
    "SPF_BROKEN_YET": "to RCPT, by `spf.permError` Defer",
    "SPF_AWAY": "to RCPT, when the DNS did not answer and `spf.tempError` is Tempfail",
    "DKIM_FAILED": "at the end of the message, by `dkim.fail` Reject",
    "DKIM_FAILED_YET": "at the end of the message, by `dkim.fail` Defer",
    "DKIM_AWAY": "at the end of the message, when the DNS did not answer and `dkim.tempError` is Tempfail",
    "DMARC_FAILED": "at the end of the message, by `dmarc.reject` or `dmarc.quarantine` Reject",
    "DMARC_FAILED_YET": "at the end of the message, by `dmarc.reject` or `dmarc.quarantine` Defer",
    "DMARC_BROKEN": "at the end of the message, by `dmarc.permError` Reject",
    "DMARC_BROKEN_YET": "at the end of the message, by `dmarc.permError` Defer",
    "DMARC_AWAY": "at the end of the message, when the DNS did not answer and `dmarc.tempError` is Tempfail",
    "HEADER_REFUSED": "at the end of the message, by a rule of `headers` with Reject; its `text` stands instead",
    "HEADER_DEFERRED": "at the end of the message, by a rule of `headers` with Defer; its `text` stands instead",
    "CHARSET_REFUSED": "at the end of the message, by `charset.action` Reject",
    "CHARSET_DEFERRED": "at the end of the message, by `charset.action` Defer",
    "ATTACHMENT_REFUSED": "at the end of the message, by `attachments.extensions` or a preset with Reject",
    "ATTACHMENT_DEFERRED": "at the end of the message, by `attachments.extensions` or a preset with Defer",
    "MALFORMED_REFUSED": "at the end of the message, by `attachments.malformed` Reject",
    "MALFORMED_DEFERRED": "at the end of the message, by `attachments.malformed` Defer",
    "OPAQUE_REFUSED": "at the end of the message, by `attachments.opaque` Reject",
    "OPAQUE_DEFERRED": "at the end of the message, by `attachments.opaque` Defer",
    "ARCHIVES_BUSY": "at the end of the message, when no thread had time for its archives within 10 s",
    "NOT_SEARCHED": "at the end of the message, with `attachments`: over 10,000 delimiters, or over 50 removals",
    "FORGED_RESULTS": "at the end of the message, where `authentication` is on",
    "BARE_NEWLINE_IN_CONTENT": "at the end of the message, unless the policy normalises for this client",
    "NUL_IN_CONTENT": "at the end of the message",
    "BDAT_SYNTAX": "to BDAT without a size; the connection is closed",
    "BDAT_TOO_LARGE": "to BDAT with a size that no message can have; the connection is closed",
    "BDAT_BEGUN": "to RCPT or DATA after the first BDAT of a message",
    "XCLIENT_SYNTAX": "to XCLIENT of a trusted host with an attribute that is not known or not valid",
    "XCLIENT_IN_TRANSACTION": "to XCLIENT after MAIL",
    "XCLIENT_LOGIN": "to XCLIENT with a LOGIN that the directory does not know or that may not log in",
    "BUSY": "to DATA, after waiting for room",
    "NOT_DURABLE": "at the end of the message: it was not confirmed in time; the client keeps it",
    "UNKNOWN": "to RCPT: the domain is ours, the address is not known",
    "DISABLED": "to RCPT: the entry is switched off",
    "OVER_QUOTA": "to RCPT, where the directory knows quota and use",
    "UNAVAILABLE": "to RCPT: the directory does not answer and nothing is cached",
    "SOURCE_ROUTE": "to RCPT with a source route",
    "ACCESS_DENIED": "to RCPT, unless the rule has a code or text of its own",
    "ACCESS_DEFERRED": "to RCPT, unless the rule has a code or text of its own",
    "ACCESS_NOT_LOADED": "to RCPT, while a table of access rules is missing (`onError: Tempfail`)",
    "RELAY_UNRESOLVED": "to RCPT for a foreign domain, when DNS fails and a rule by host name could let it",
    "DENIED": "to RCPT for a foreign domain without the right to relay",
    "HELP": "to HELP",
    "VRFY": "to VRFY, whatever the address: it tells nothing (RFC 5321 7.3)",
}
