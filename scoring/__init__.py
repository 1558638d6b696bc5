"""What is measured on a network: line shape, optimal transport, and the tables they are kept in."""
