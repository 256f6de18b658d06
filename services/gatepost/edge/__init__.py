"""The MX edge: judges SMTP sessions while the client waits and answers 250 only when the log is durable."""
