"""A server of HTTP for whoever answers, which knows no dataset. Four answer by it: apps, proxy, feed, operators."""
