"""Answers apps from the replica, over TCP and Unix sockets.

app_server    the serving station as one task
apps          the API as an Application, and the way to proxied services
guard         of which app a request is, and whether it may
counting      counts each answer for its app
allowed       a version as an app sees it that may have a part
catalog       what serving reads from; edged/replica implements it
news          telling those who wait that a dataset has a new version
damage        telling who can mend it that an answer has met damage
answers/      what apps ask, and the answer to it
"""
