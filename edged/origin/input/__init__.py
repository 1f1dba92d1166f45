"""What a publisher is given: lines read into records, and what of them differs from the state."""
