"""How records and changes become few bytes, and come back as they were. No I/O, and integers wherever it matters.

hop           a hop as it travels, and which of its forms is the smallest
wholehop      form 1: keys, then whole records by columns against the old ones
modelledhop   forms 2 and 3: keys and patches, arithmetic-coded; few changes, and many
snapshot      parts of a slice's whole content, and its dictionary
columns       records by columns, as snapshots and whole hops hold them

treecoding    a value against another: what differs, field by field
guessing      what a field's next value may be, by what the hop has shown of it
transforms    what may make a new value of an old record
differences   what differs between two maps, lists, texts
texts         a text against another: shared ends, replaced words
textmodel     texts, decisions and numbers predicted from what both ends hold
knowledge     what a slice's dictionary tells of its records
aside         texts and bits that stand beside the coded bits
arithmetic    bits and their probabilities to bytes and back
changes       what a hop says, and what it asks of a receiver: `Lookup`
octets        varints, counted bytes, bits, sections
"""
