"""How many examples an expensive property gets: few while somebody waits, many in CI."""

import os

from hypothesis import HealthCheck, settings

FEW, MANY = 25, 80


def examples(few: int = FEW, many: int = MANY) -> settings:
    """A decorator for a property whose examples take long; it gets ``many`` in CI only.

    Each example has to make its own folder in a temporary one of the test.
    """
    return settings(
        max_examples=many if os.environ.get("CI") else few,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
