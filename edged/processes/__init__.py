"""Further serving processes that share the TCP ports (`[serve]` workers above 1).

worker   one of them: the same replica, the same answers, no synchronising
workers  in the daemon: keeps them running, sums what they count
"""
