"""The exception tree: every error says what was expected, what came, and what to do.

LeadlineError
├── ConfigError          an option, a recipe or an argument is wrong (all problems at once)
│   └── UnknownNameError     a name that is not in the list, with 'did you mean'
├── DataError            the data are missing, empty, unreadable or inconsistent
├── ModelError           a model cannot be built, or does not fit its weights or inputs
├── FileError            a file cannot be read or written
│   ├── CorruptFileError     it is there, but it is not what it claims to be
│   └── UnsafeFileError      reading it could execute code, so it is refused
├── MeasurementError     a model and a batch cannot be measured as asked
├── RunError             a run folder cannot be used as asked
│   └── RunLockedError       another process is writing this run
└── TrainingError        the training itself cannot go on
    └── NonFiniteError       the loss or a gradient became NaN or infinite

Anything else that escapes is a defect of Leadline.
"""

from __future__ import annotations


class LeadlineError(Exception):
    """The root of every error that Leadline raises on purpose.

    >>> print(LeadlineError(expected="a folder", received="nothing at x", remedy="check the path"))
    expected a folder
    received nothing at x
    do this  check the path
    """

    def __init__(self, *, expected: str, received: str, remedy: str) -> None:
        super().__init__(f"expected {expected}\nreceived {received}\ndo this  {remedy}")
        self.expected = expected
        self.received = received
        self.remedy = remedy

    def to_plain(self) -> dict[str, str]:
        """The error as plain values for JSON: its kind, and the three things it says."""
        return {
            "error": type(self).__name__,
            "expected": self.expected,
            "received": self.received,
            "remedy": self.remedy,
        }


class ConfigError(LeadlineError, ValueError):
    """An option, a recipe or an argument is wrong; `problems` lists all that were found."""

    def __init__(
        self,
        *,
        expected: str,
        received: str,
        remedy: str,
        problems: tuple[str, ...] = (),
    ) -> None:
        super().__init__(expected=expected, received=received, remedy=remedy)
        self.problems = problems or (received,)


class UnknownNameError(ConfigError):
    """A name that is not in the list of known ones."""


class DataError(LeadlineError):
    """The data are missing, empty, unreadable or inconsistent."""


class ModelError(LeadlineError):
    """A model cannot be built, or does not fit its weights or its inputs."""


class MeasurementError(LeadlineError):
    """A model and a batch cannot be measured as asked."""


class FileError(LeadlineError):
    """A file cannot be read or written."""


class CorruptFileError(FileError):
    """A file is there, but it is not what it claims to be."""


class UnsafeFileError(FileError):
    """Reading the file could execute code, so it is refused."""


class RunError(LeadlineError):
    """A run folder cannot be used as asked."""


class RunLockedError(RunError):
    """Another process is writing this run."""


class TrainingError(LeadlineError):
    """The training itself cannot go on."""


class NonFiniteError(TrainingError):
    """The loss or a gradient became NaN or infinite."""
