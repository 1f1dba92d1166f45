"""Answers apps from the replica, over TCP and Unix sockets."""
