"""Networks, losses and relaxations of the models; needs torch."""
