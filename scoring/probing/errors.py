"""What the probe raises and warns of."""


class ProbeError(ValueError):
    """A model or a setting that the probe cannot measure; the message says what to change."""


class ProbeWarning(UserWarning):
    """A measurement that means less than it seems to."""
