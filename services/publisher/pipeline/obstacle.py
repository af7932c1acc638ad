"""What keeps the publisher from writing its repository, and the pauses until it tries again."""

import time

from services.publisher.pipeline.failures import RetryTimes
from services.publisher.pipeline.progress import Progress
from services.repository.errors import RepositoryError

__all__ = ["Obstacle"]


class Obstacle:
    """Counts the attempts that met the same obstacle; whoever watches the publisher is told of it."""

    def __init__(self, *, times: RetryTimes, progress: Progress) -> None:
        self._times = times
        self._progress = progress
        self._attempts = 0
        self._since = 0.0

    @property
    def seconds(self) -> float:
        """For how long it has been there."""
        return time.monotonic() - self._since

    def met(self, error: RepositoryError) -> float:
        """Take note of one more attempt that failed; return the seconds until the next one."""
        if self._attempts == 0:
            self._since = time.monotonic()
        self._progress.obstacle = str(error)
        pause = self._times.pause(self._attempts)
        self._attempts += 1
        return pause

    def gone(self) -> None:
        """Take note that there is none."""
        self._progress.obstacle = None
        self._attempts = 0
