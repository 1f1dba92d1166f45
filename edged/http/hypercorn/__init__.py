"""The other lane: what the epoll lane does not take, by Hypercorn with its known faults mended."""
