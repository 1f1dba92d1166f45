"""A version ahead: prepared, sealed and handed out before it is live, released or withdrawn later.

plans       what is prepared, in the publisher's state
preparing   the operations: prepare, release, withdraw, and prepare anew after a takedown
"""
