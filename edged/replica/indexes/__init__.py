"""What the indexes of one pack hold, on flash and in memory."""
