"""Who asks, and what they may ask for.

identity    what a connection tells of its peer; the identity that every handler is given
rights      what an app may ask for, and by what it is known
apps        the apps in force: which one asks, and not too often
configured  from `[[apps]]` to them
usage       what was used: counts, by hour and day
usagefile   the file in which they are kept

`serve/guard.py` asks here for each request.
"""
