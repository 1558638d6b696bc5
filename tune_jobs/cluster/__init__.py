"""Running sweeps on a cluster of Ray or Slurm: jobs, tunnels, nodes, the queue."""
