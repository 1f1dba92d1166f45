"""What travels between an origin and a replica. No I/O, no clock, no chance: bytes and times come in as arguments."""
