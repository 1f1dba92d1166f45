"""The epoll lane: plain requests answered by one task, again and again from memory."""
