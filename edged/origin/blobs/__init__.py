"""What a version is made of: hops, snapshots, pages of the chain."""
