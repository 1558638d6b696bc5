"""How trained networks respond to lesions, noise and attacks: experiments of the appendix."""
