"""A version ahead, as it travels before it is live (encrypted by edged/feed/trust/sealing.py).

sealed     what a head says of it, and of its key
laidhop    the form of its hops, which takes no time to be applied
"""
