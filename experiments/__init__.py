"""One file a question: `python -m experiments.NAME [--quick] [--seed 0] [--epochs N] [--out
runs/NAME]`.
"""
