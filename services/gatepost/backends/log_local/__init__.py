"""Groups and readers within one process: what the embedded log and the test fake share above their storage."""
