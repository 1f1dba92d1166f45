"""Packs as bytes: built, and read in place. No I/O."""
