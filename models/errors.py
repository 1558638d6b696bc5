"""The exception for data sets that cannot be used."""


class DataError(ValueError):
    """A data set is missing, or is not what it should be; the message names it and the fix."""
