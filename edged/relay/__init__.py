"""A feed handed on: heads, roots of trust and blobs for other edgeds, CDNs and plain HTTP clients, without any key.

    server      `[relay]` of the configuration at work: its listener
    relay       which datasets are handed on; edged/feedserving asks it
    following   one dataset's head and roots, kept as new as its origins have them, verified before they are shown
    blobs       one dataset's blobs: which there may be, each fetched once however many ask, and ahead of being asked
    cache       where they lie: files named by their SHA-256, within a quota

What goes out was checked: a head by its signature, under roots that lead on from the trust file; a blob by its name.
"""
