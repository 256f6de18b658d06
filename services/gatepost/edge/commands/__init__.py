"""What each SMTP command does, one file per step of a session."""
