"""The relay: sends mail to other hosts by SMTP, defers, and writes delivery status notifications."""
