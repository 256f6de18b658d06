"""Real servers on 127.0.0.1 for tests, benchmarks and the node lane.

`testbed.provision` installs them (once, into a cache outside the checkout); the other modules run them, each as a
context manager that hands out ports only when the server answers and leaves nothing behind. Nothing in here is
imported by the gateway itself.
"""
