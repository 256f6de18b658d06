"""MIME as it really comes, broken or not: read in pieces, in bounded memory, and never with an exception."""
