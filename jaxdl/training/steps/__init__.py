"""Training steps: supervised, adversarial, variational, reconstruction."""
