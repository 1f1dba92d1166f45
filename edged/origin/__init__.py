"""Publishes: reads the input, finds the difference, validates, slices, writes blobs, swaps the head."""
