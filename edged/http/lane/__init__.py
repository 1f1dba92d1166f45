"""The lane: plain requests answered by one task on an epoll set of its own, again and again from memory.

lane          the loop, and the table of what each event does in each state
connection    the states and events of a connection, and what it is in the middle of
sockets       the epoll set: reading, writing, and how a connection ends
turns         whose turn it is; precedence: who comes first, and who makes room; deadlines: who is late
answers       what is done with a request of HTTP/1.1
remembered    bytes of requests to bytes of answers
client        an answer that a task writes, in HTTP/1.1; h2client: in HTTP/2
secure        connections over TLS; multiplexed, exchange: those of HTTP/2
"""
