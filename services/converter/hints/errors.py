"""What can go wrong with hints.

Tree::

    HintsError
    ├── EndpointsError       the file of endpoints cannot be read, or something in it is wrong
    ├── HintJournalError     the journal failed
    │   ├── JournalFullError it holds as many hints as it may
    │   └── JournalSlowError its disk is slower than senders wait
    └── PayloadError         a body is not what its endpoint's kind sends
        └── NotJsonError     it is not even JSON
"""

from services.common.errors import SuiteError

__all__ = [
    "EndpointsError",
    "HintJournalError",
    "HintsError",
    "JournalFullError",
    "JournalSlowError",
    "NotJsonError",
    "PayloadError",
]


class HintsError(SuiteError):
    """Taking hints failed."""


class EndpointsError(HintsError):
    """The file of endpoints cannot be read, or something in it is wrong."""


class HintJournalError(HintsError):
    """The journal of hints failed."""


class JournalFullError(HintJournalError):
    """The journal holds as many hints as it may: whoever sends more has to wait."""


class JournalSlowError(HintJournalError):
    """The journal takes longer than senders wait: whoever sends something has to come again."""


class PayloadError(HintsError):
    """A body is not what its endpoint's kind sends."""


class NotJsonError(PayloadError):
    """A body is not JSON."""
