"""A server of HTTP for whoever answers, which knows no dataset. Four answer by it: apps, proxy, feed, operators.

application   the interface: a Request in, an Answer out; signals that held answers wait for
request       a request of any version, and the parts of its target
server        the accept path: caps, peers, a stop that ends
addresses     listening sockets, TCP and Unix
limits meter  what one listener bears; what it has counted
lane/         one task on epoll: HTTP/1.1, HTTP/2 and TLS, answered again and again from memory
hypercorn/    what the lane does not take: bodies and WebSockets in HTTP/1.1
h2/ tls/      HTTP/2 and TLS without I/O, and certificates
hosts cors    which Host values are answered; which web pages may read
head framing  HTTP/1.1 heads and chunked bodies, read strictly; status lines, fields and chunks as bytes
fields        lines, lists and dates in fields
validators    entity tags and conditions
ranges        byte ranges
problem       the one form of every error
memory        what is remembered, bounded in bytes
urls          the URLs of others, judged before anybody asks them
"""
