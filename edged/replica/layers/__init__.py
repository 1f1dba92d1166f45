"""The packs of a slice as one: finding a record, conditions, search."""
