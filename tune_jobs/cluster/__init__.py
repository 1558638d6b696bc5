"""Running sweeps on a Ray cluster: jobs, tunnels, nodes, the queue."""
