"""Who owns which partition of a topic among a group's members in this process, and how it is handed over.

A partition that changes hands takes its commit along in memory, so that the new owner starts where the old
one's finished records end, whatever has reached the storage by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gatepost.backends.sharing import share
from gatepost.core.completion import Commit


class Member(Protocol):
    """A consumer as its group sees it."""

    @property
    def partitions(self) -> frozenset[int]: ...

    def gain(self, commits: Mapping[int, Commit]) -> None:
        """Own these partitions from now on, beginning at their commits."""

    def lose(self, partitions: frozenset[int]) -> Mapping[int, Commit]:
        """Own these partitions no more; return what is finished of them."""


class Group:
    """The members of one group on one topic."""

    def __init__(self, commits: Mapping[int, Commit]) -> None:
        """`commits`: where each partition begins, for all partitions of the topic."""
        self._commits = dict(commits)
        self._members: list[Member] = []

    @property
    def empty(self) -> bool:
        return not self._members

    def join(self, member: Member) -> None:
        self._members.append(member)
        self._rebalance()

    def leave(self, member: Member) -> None:
        """Take a member out; what it owned goes to the others at once."""
        self._members.remove(member)
        self._commits.update(member.lose(member.partitions))
        self._rebalance()

    def _rebalance(self) -> None:
        shares = share(len(self._commits), [member.partitions for member in self._members])
        for member, wanted in zip(self._members, shares, strict=True):
            surplus = member.partitions - wanted
            if surplus:
                self._commits.update(member.lose(surplus))
        for member, wanted in zip(self._members, shares, strict=True):
            new = wanted - member.partitions
            if new:
                member.gain({partition: self._commits[partition] for partition in sorted(new)})
