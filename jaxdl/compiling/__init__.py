"""Programs with compiler options, and what stands in for one-off programs on the host."""
