"""Tests of the relay: real publishers, real relays on loopback, real replicas."""
