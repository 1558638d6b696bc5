"""Parts of the probe for any torch module; :mod:`scoring.probe` is its entry point."""
