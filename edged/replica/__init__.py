"""What lies on flash: immutable memory-mapped packs, a manifest swapped by rename, many readers and one writer."""
