"""Maps of few points, whose matchings can all be tried."""

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


@st.composite
def maps(draw, least=2, most=7, outputs=True):
    """Inputs and outputs (m, d) on a grid of eighths, where equal costs are exactly equal."""
    m, d = draw(st.integers(least, most)), draw(st.integers(1, 3))
    reach = draw(st.sampled_from([2, 100]))
    points = arrays("int64", (m, d), elements=st.integers(-reach, reach)).map(lambda a: a / 8)
    x, y = draw(points), draw(points)
    assume((x != x[0]).any() and (y != y[0]).any())
    return x, y
