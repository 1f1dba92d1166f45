"""Stored responses: in memory, on flash, and both as one.

cache       both tiers: find, keep, freshen, invalidate        memory      in memory, and which keys the disk has
disktier    the tier on disk                                   store       records under keys within a quota
disk        diskcache's Disk, hardened                         record      keys and entries as bytes, seals, checksums
worker      the one thread in which all that blocks runs       inventory   the store beside a running daemon
"""
