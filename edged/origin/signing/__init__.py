"""Private keys, and the roots of trust that name them."""
