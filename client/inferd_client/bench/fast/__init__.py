"""The fast client: gRPC over HTTP/2 on plain sockets, just enough of both to send load.

It sends the same frames again and again and looks at little of what comes back, so that a
request costs a few microseconds; flow control, resets, errors and timeouts are those of RFC 9113
and of gRPC's "gRPC over HTTP2". The layers, from below:

    frames, header_block, outbox, messages   bytes
    call, connection                         HTTP/2 without a socket
    wire, link                               sockets, and a new one when a connection ends
    unary, stream, answers                   places in flight, and what they make of an answer
    load, drive                              the schedule, the clock and the loop
"""
