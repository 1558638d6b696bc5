"""The plots: one module per family of figures, ``style`` for how and ``panels`` for where.

Each takes stored results and returns a matplotlib figure. ``analysis.figures`` lists them.
"""
