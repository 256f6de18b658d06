"""The mail vocabulary and every decision, as pure functions of values: no sockets, no clocks, no threads."""
