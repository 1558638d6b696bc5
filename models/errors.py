"""The exceptions for data sets and for code of users that cannot be used."""


class DataError(ValueError):
    """A data set is missing, or is not what it should be; the message names it and the fix."""


class CodeError(ValueError):
    """Code of a user or a library is missing or fails; the message names it and the fix."""
