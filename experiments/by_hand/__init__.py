"""Two networks with their backward passes in plain NumPy, to be read: `sigmoid_network`, then
`convolutional_network`.
"""
