"""What a user writes: MailDomain, RelayPolicy and Settings as msgspec Structs."""
