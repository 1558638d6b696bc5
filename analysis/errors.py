"""The error of all that reads results. It is here since reading them loads pandas."""


class ResultsError(ValueError):
    """Results are missing or cannot be read; the message says where, and what to do."""
