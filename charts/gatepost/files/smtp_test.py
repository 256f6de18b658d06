"""`helm test`: every listener must greet, answer EHLO, and offer TLS where it has a certificate."""

import json
import os
import smtplib
import ssl
import sys

CONNECT_SECONDS = 20


def open_session(target):
    if not target["implicit"]:
        return smtplib.SMTP(target["host"], target["port"], timeout=CONNECT_SECONDS)
    # Whether the certificate is the right one is for its clients to say, who know its name.
    context = ssl._create_unverified_context()  # noqa: S323
    return smtplib.SMTP_SSL(target["host"], target["port"], timeout=CONNECT_SECONDS, context=context)


def test_listener(target):
    """Raises what is wrong; smtplib checks for the greeting 220 itself."""
    recipient = os.environ["RECIPIENT"] if os.environ["RECIPIENT_LISTENER"] == target["listener"] else ""
    with open_session(target) as session:
        code, text = session.ehlo("helm-test.invalid")
        if code != 250:
            raise RuntimeError(f"EHLO: {code} {text.decode(errors='replace')}")
        if target["tls"] and not target["implicit"] and not session.has_extn("starttls"):
            raise RuntimeError("has a certificate but offers no STARTTLS")
        if recipient:
            header = f"From: <>\r\nTo: <{recipient}>\r\nSubject: helm test\r\n"
            session.sendmail("", [recipient], f"{header}\r\nThis message was sent by helm test.\r\n")
            print(f"  250 for a message to {recipient}")


def main():
    failed = False
    for target in json.loads(os.environ["TARGETS"]):
        place = "{listener} at {host}:{port}".format(**target)
        try:
            test_listener(target)
        except (OSError, RuntimeError, smtplib.SMTPException) as error:
            failed = True
            print(f"{place}: FAILED: {error}")
        else:
            print(f"{place}: ok")
    return failed


sys.exit(main())
