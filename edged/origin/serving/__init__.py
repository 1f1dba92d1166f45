"""The feed over HTTP: heads with a long poll, roots of trust, blobs.

server        `edged origin serve`, and heads kept fresh
app           the feed as an Application: what each path is
heads         the public heads as they are now, and the signals of their next ones
polls         the numbers of held polls
"""
