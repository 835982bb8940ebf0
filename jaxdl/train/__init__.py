"""Training: pure steps, the programs they become, and the one loop."""
