"""What a trial trains: its configuration, Table 1's networks, data sets, the training loop."""
