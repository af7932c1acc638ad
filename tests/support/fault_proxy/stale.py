"""Answers of former times, as caches give them that do not ask again."""

__all__ = ["FirstAnswers"]


class FirstAnswers:
    """What was answered to each request the first time."""

    def __init__(self) -> None:
        self._answers: dict[str, bytes] = {}

    def find(self, line: str) -> bytes | None:
        """Return the whole answer to a request, head included; None if it is the first time."""
        return self._answers.get(line)

    def keep(self, line: str, answer: bytes) -> None:
        """Keep a whole answer."""
        self._answers[line] = answer
