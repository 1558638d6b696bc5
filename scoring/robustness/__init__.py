"""How a trained network takes lesions, noise and attacks: the experiments of the appendix."""
