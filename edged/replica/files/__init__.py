"""The files of one replica and what stands in them."""
