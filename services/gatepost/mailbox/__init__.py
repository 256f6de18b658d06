"""The mailbox service: stores mail in Maildir exactly once, or hands it to an LMTP server."""
