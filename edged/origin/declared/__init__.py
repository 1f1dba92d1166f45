"""What `<dataset>.toml` declares, and what follows from it: slices and validators."""
