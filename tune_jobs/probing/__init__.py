"""What ``geosweep probe`` loads and writes: models, their inputs, results."""
