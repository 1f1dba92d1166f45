"""The published feed over HTTP: heads with a long poll, roots of trust, blobs (edged/feedserving says how).

server        `edged origin serve`, and heads kept fresh
heads         the public files as they are now, and the signals of the next heads
"""
