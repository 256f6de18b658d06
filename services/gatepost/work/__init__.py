"""What router, mailbox and relay share: reading a work topic, patience while something is away, one exit."""
