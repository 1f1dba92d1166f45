"""What synchronisation decides. No I/O, no clock, no chance: events come in, effects come out."""
