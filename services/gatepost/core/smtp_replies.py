"""Every reply that the edge gives, in one table: code, enhanced code, text and the name of the check.

Codes: RFC 5321 4.2.2 and 4.3.2; enhanced codes: RFC 3463 as RFC 2034 and the IANA registry of RFC 5248 use
them. A text names the cause, for a bounce is often all that its reader gets. Texts that quote the client's own
words are made by the functions at the end.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.reply import Reply

# -- the connection (RFC 5321 3.1, 3.8)
NO_CONFIGURATION: Final = Reply(421, "4.3.2", "not ready yet, please try again later", "configuration")
LOG_AWAY: Final = Reply(421, "4.3.2", "mail cannot be stored at the moment, please try again later", "log")
DRAINING: Final = Reply(421, "4.3.2", "this server is shutting down, please connect again", "draining")
TOO_MANY_SESSIONS: Final = Reply(421, "4.3.2", "too many connections to this server", "sessions")
TOTAL_CONCURRENT: Final = Reply(421, "4.7.0", "too many connections to this service", "total-concurrent")
HOST_CONCURRENT: Final = Reply(421, "4.7.0", "too many connections from your address", "per-host-concurrent")
NETWORK_CONCURRENT: Final = Reply(421, "4.7.0", "too many connections from your network", "per-network-concurrent")
HOST_RATE: Final = Reply(421, "4.7.0", "too many connections from your address in a minute", "per-host-rate")
NO_MESSAGE: Final = Reply(421, "4.7.0", "too many recipients without a message", "recipients-without-message")
BANNED: Final = Reply(421, "4.7.1", "no mail is taken from your network for a while", "ban")
EARLY_TALKER: Final = Reply(554, "5.5.0", "you spoke before the greeting (RFC 5321 3.1)", "early-talker")
IDLE: Final = Reply(421, "4.4.2", "no command came in time", "idle-timeout")
TOO_SLOW: Final = Reply(421, "4.4.2", "the message came too slowly", "minimum-rate")
TOO_MANY_ERRORS: Final = Reply(421, "4.7.0", "too many errors in this session", "errors")
TOO_MUCH_JUNK: Final = Reply(421, "4.7.0", "too many commands without a message", "junk-commands")
TOO_MANY_DEFERRALS: Final = Reply(421, "4.7.0", "too many refused commands without a message", "deferrals")
AUTH_FAILURES: Final = Reply(421, "4.7.0", "too many failed authentications", "auth-failures")
RIGHT_REVOKED: Final = Reply(421, "4.7.0", "the policy has changed, please connect again", "policy-changed")
INTERNAL: Final = Reply(451, "4.3.0", "internal error, please try again later", "internal")

# -- command lines (RFC 5321 4.1, 4.5.3.1.4)
UNKNOWN_COMMAND: Final = Reply(500, "5.5.2", "unknown command", "syntax")
LINE_TOO_LONG: Final = Reply(500, "5.5.2", "the command line is too long", "line-length")
BARE_NEWLINE: Final = Reply(500, "5.5.2", "a line ends with CR LF and has no other CR, LF or NUL", "bare-newline")
WRONG_PROTOCOL: Final = Reply(500, "5.5.2", "this is an SMTP server", "wrong-protocol")
NOT_IMPLEMENTED: Final = Reply(502, "5.5.1", "the command is not implemented", "syntax")
NO_ARGUMENT: Final = Reply(501, "5.5.4", "the command takes no argument", "syntax")
ARGUMENT_NEEDED: Final = Reply(501, "5.5.4", "the command needs an argument", "syntax")
HELO_SYNTAX: Final = Reply(501, "5.5.4", "a domain or an address literal is expected", "helo")
HELO_FIRST: Final = Reply(503, "5.5.1", "send EHLO or HELO first", "sequence")
MAIL_FIRST: Final = Reply(503, "5.5.1", "send MAIL first", "sequence")
RCPT_FIRST: Final = Reply(503, "5.5.1", "no recipient was accepted", "sequence")
NESTED_MAIL: Final = Reply(503, "5.5.1", "a sender was given already", "sequence")
PIPELINING: Final = Reply(503, "5.5.0", "commands came before they were due (RFC 2920 3.1)", "pipelining")
OUT_OF_STEP: Final = Reply(421, "4.7.0", "the session is out of step", "pipelining")

# -- STARTTLS (RFC 3207 4) and AUTH (RFC 4954 4, 6)
TLS_REQUIRED: Final = Reply(530, "5.7.0", "must issue a STARTTLS command first", "tls")
TLS_NOT_AVAILABLE: Final = Reply(502, "5.5.1", "TLS is not available here", "tls")
TLS_ALREADY: Final = Reply(503, "5.5.1", "TLS is in use already", "tls")
TLS_OUT_OF_PLACE: Final = Reply(503, "5.5.1", "STARTTLS comes before AUTH and outside of a transaction", "tls")
TLS_INJECTION: Final = Reply(421, "4.7.0", "commands came behind STARTTLS before TLS began", "starttls-injection")
AUTH_REQUIRED: Final = Reply(530, "5.7.0", "authentication is required", "auth")
AUTH_NOT_AVAILABLE: Final = Reply(502, "5.5.1", "AUTH is not available here", "auth")
AUTH_NEEDS_EHLO: Final = Reply(503, "5.5.1", "send EHLO first", "auth")
AUTH_NEEDS_TLS: Final = Reply(538, "5.7.11", "encryption is required for AUTH", "auth")
AUTH_ALREADY: Final = Reply(503, "5.5.1", "you are authenticated already", "auth")
AUTH_IN_TRANSACTION: Final = Reply(503, "5.5.1", "AUTH is not allowed in a transaction", "auth")
AUTH_MECHANISM: Final = Reply(504, "5.5.4", "the mechanism is not offered", "auth")
AUTH_SYNTAX: Final = Reply(501, "5.5.2", "the response is not valid", "auth")
AUTH_CANCELLED: Final = Reply(501, "5.0.0", "the authentication was cancelled", "auth")
AUTH_REFUSED: Final = Reply(535, "5.7.8", "authentication credentials are not valid", "auth")
AUTH_UNAVAILABLE: Final = Reply(454, "4.7.0", "temporary authentication failure", "auth")

# -- XCLIENT (Postfix's XCLIENT_README)
XCLIENT_SYNTAX: Final = Reply(501, "5.5.4", "an attribute is not known or not valid", "xclient")
XCLIENT_IN_TRANSACTION: Final = Reply(503, "5.5.1", "XCLIENT is not allowed in a transaction", "xclient")
XCLIENT_LOGIN: Final = Reply(550, "5.7.0", "the login is not known here", "xclient")

# -- MAIL and RCPT
MAIL_SYNTAX: Final = Reply(501, "5.5.4", "MAIL FROM:<address> is expected", "syntax")
RCPT_SYNTAX: Final = Reply(501, "5.5.4", "RCPT TO:<address> is expected", "syntax")
UNKNOWN_PARAMETER: Final = Reply(555, "5.5.4", "a parameter is not recognised", "parameters")
PARAMETER_SYNTAX: Final = Reply(501, "5.5.4", "a parameter is not valid or stands twice", "parameters")
NEEDS_SMTPUTF8: Final = Reply(553, "5.6.7", "a non-ASCII address needs SMTPUTF8 (RFC 6531)", "smtputf8")
TOO_LARGE: Final = Reply(552, "5.3.4", "the message is larger than this server takes", "size")
RECIPIENT_TOO_LARGE: Final = Reply(552, "5.3.4", "the message is larger than this recipient takes", "size")
TOO_MANY_RECIPIENTS: Final = Reply(452, "4.5.3", "too many recipients, send to the others separately", "recipients")
OTHER_CONTENT_POLICY: Final = Reply(
    452, "4.5.3", "another policy judges this recipient's mail, send to it separately", "content-policy"
)
SENDER_MISMATCH: Final = Reply(553, "5.7.1", "your login may not send as this address", "sender-match")

# -- the message
HEADER_TOO_LARGE: Final = Reply(
    552, "5.3.4", "the message's header is larger than this server takes", "header-size"
)
LOOP: Final = Reply(554, "5.4.6", "too many Received fields: this looks like a mail loop", "loop")
BARE_NEWLINE_IN_CONTENT: Final = Reply(
    550, "5.5.2", "the message has a CR or LF that is no line end (RFC 5321 2.3.8)", "bare-newline"
)
NUL_IN_CONTENT: Final = Reply(550, "5.6.0", "the message has a NUL byte (RFC 5322 2.2)", "nul")
BDAT_SYNTAX: Final = Reply(501, "5.5.4", "BDAT size [LAST] is expected", "syntax")
BDAT_TOO_LARGE: Final = Reply(552, "5.3.4", "the chunk is larger than any message may be", "size")
BDAT_BEGUN: Final = Reply(503, "5.5.1", "the message has begun with BDAT: only BDAT or RSET may follow", "sequence")
BUSY: Final = Reply(452, "4.3.1", "too many messages are being received, please try again later", "memory")
NOT_DURABLE: Final = Reply(451, "4.3.0", "the message could not be stored, please try again later", "log")

HELP: Final = Reply(
    214,
    "2.0.0",
    "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH; the postmaster is a person",
)
VRFY: Final = Reply(252, "2.5.0", "addresses are verified by RCPT (RFC 5321 7.3)")


def quoting(reply: Reply, word: str) -> Reply:
    """The reply with the address or word it is about in front of its text."""
    return msgspec.structs.replace(reply, text=f"<{word}>: {reply.text}")


def bad_address(code: int, enhanced: str, reason: str) -> Reply:
    """An address that cannot be parsed; `reason` is AddressError's."""
    return Reply(code, enhanced, reason, "address")
