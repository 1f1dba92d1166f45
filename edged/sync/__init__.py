"""Brings a replica to the live version: a state machine without I/O and the trio task that feeds it."""
