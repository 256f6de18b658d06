"""Sharing a topic's partitions among a group's members: evenly, and with as few moves as that allows."""

from __future__ import annotations

from collections.abc import Sequence


def share(partitions: int, owned: Sequence[frozenset[int]]) -> Sequence[frozenset[int]]:
    """Return each member's new partitions, given what each owns now (nothing may be owned twice).

    The shares differ by one at most. A member keeps what it owns up to its share: each partition that moves
    may give its unfinished records to two members.
    """
    if not owned:
        return ()
    least, extra = divmod(partitions, len(owned))
    # Members that already own more than the least get the extra ones, so that nothing moves needlessly.
    order = sorted(range(len(owned)), key=lambda member: -len(owned[member]))
    quota = {member: least + (rank < extra) for rank, member in enumerate(order)}
    kept = [set(sorted(owned[member])[: quota[member]]) for member in range(len(owned))]
    free = sorted(set(range(partitions)).difference(*kept), reverse=True)
    for member, mine in enumerate(kept):
        while len(mine) < quota[member]:
            mine.add(free.pop())
    return [frozenset(mine) for mine in kept]
