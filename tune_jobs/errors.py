"""The exception that the command line turns into one message and exit status 2."""


class SweepError(ValueError):
    """A sweep cannot be run; the message names the file, the field and what is allowed."""
