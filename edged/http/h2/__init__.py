"""HTTP/2 for the lane, without I/O: bytes and times in, bytes and events out (RFC 9113, RFC 7541, RFC 9218).

frames       names, layouts, what is wrong with a frame's payload
huffman      the string code of HPACK
fieldblocks  field blocks to fields and back; a table's states are values, so that what was decoded is remembered
requests     fields to a request or to trailers, by the rules of RFC 9113 section 8
streams      a stream's states as a table, and what it keeps
outflow      what goes to the peer: frames, and bodies as windows and priorities let them
remembered   answers remembered whole, as frames but for the stream's number
events       what a connection tells whoever answers
answering    open streams, what is answered on them, how much of bodies may come
control      the peer's frames that are no request, and floods of them
connection   the peer's bytes, frames by (phase, type) as a table, requests
"""
