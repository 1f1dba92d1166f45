"""The published feed over HTTP: heads with a long poll, roots of trust, blobs (edged/feedserving says how).

server        `edged origin serve`
browsing, exploring, published, livefleet    what operators are shown: history, records, the fleet;  intake: use
heads         the public files as they are now, and the signals of the next heads
keeping       beside that: heads kept fresh, versions ahead released, a broker told
storedheads   the same for a feed in an object store, which devices read there
"""
