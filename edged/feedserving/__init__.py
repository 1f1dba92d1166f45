"""A feed over HTTP, for whoever has one: the origin from its directory, a relay from what it has fetched.

app     which path is what, held polls of the head; the interface that an origin and a relay implement
files   a file of the feed, or a range of it, as an answer
polls   the numbers of held polls
"""
