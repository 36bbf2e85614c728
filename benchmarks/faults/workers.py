"""Worker processes of the benchmark, which may have processes of their own: data loaders'."""

from __future__ import annotations

from multiprocessing.context import SpawnContext, SpawnProcess


class Worker(SpawnProcess):
    """A process that no pool can make a daemon: a daemon could not load data in parallel."""

    @property
    def daemon(self) -> bool:
        return False

    @daemon.setter
    def daemon(self, wanted: bool) -> None:
        """A pool asks for it."""


class Context(SpawnContext):
    """Starts such workers, each in a fresh interpreter."""

    Process = Worker
