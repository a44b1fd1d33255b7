"""NBD's corners, by libnbd: structured replies, unaligned requests, errors that must be errors.

Arguments: socket, export, its size, its block size.
"""

import errno
import sys

import nbd

SOCKET, EXPORT, SIZE, BLOCK = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
MAX = 32 << 20


def connect(structured=True, constraints=True, export=EXPORT):
    """A connection on which libnbd checks nothing itself: the server has to."""
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.set_request_structured_replies(structured)
    h.set_request_block_size(constraints)
    h.set_export_name(export)
    h.connect_unix(SOCKET)
    return h


def refused(errors, call, *arguments, **named):
    """The call must fail with one of `errors`."""
    try:
        call(*arguments, **named)
    except nbd.Error as error:
        assert error.errnum in errors, f"{call.__name__}{arguments[1:]}: {error}"
        return
    raise AssertionError(f"{call.__name__} {arguments[-1:]} was accepted")


def pattern(length, salt):
    return bytes((i * 7 + salt) & 0xFF for i in range(length))


def negotiation():
    h = connect()
    assert h.get_protocol() == "newstyle-fixed"
    assert h.get_structured_replies_negotiated()
    assert h.get_size() == SIZE
    assert h.can_multi_conn() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_cache() and h.can_df()
    assert h.get_block_size(nbd.SIZE_MINIMUM) == BLOCK
    h.shutdown()
    assert not connect(structured=False).get_structured_replies_negotiated()
    refused({errno.ENOENT}, connect, export="no-such-volume")
    refused({errno.ENOENT, errno.EINVAL, errno.ENAMETOOLONG}, connect, export="x" * 4096)


def structured_reads():
    h = connect()
    data = pattern(1 << 20, 3)
    h.pwrite(data, 0)
    for flags in (0, nbd.CMD_FLAG_DF):
        chunks = []

        def chunk(buf, offset, status, error):
            assert status == nbd.READ_DATA or status == nbd.READ_HOLE, status
            chunks.append((offset, len(buf)))

        assert h.pread_structured(len(data), 0, chunk, flags) == data
        if flags:
            assert len(chunks) == 1, f"DF: one chunk, not {chunks}"
        # Whole, each byte once.
        assert sum(length for _, length in chunks) == len(data), chunks
    h.shutdown()


def unaligned():
    """A client that did not ask for the constraints may send anything (NBD proto.md, block size constraints)."""
    h = connect(constraints=False)
    model = bytearray(pattern(64 << 10, 5))
    base = 8 << 20
    h.pwrite(bytes(model), base)
    for salt, (offset, length) in enumerate(
        [(1, 1), (511, 2), (512, 511), (513, 4097), (4095, 2), (4096, 1), (8191, 8193), (0, 513), (20001, 12345)]
    ):
        data = pattern(length, 100 + salt)
        h.pwrite(data, base + offset, nbd.CMD_FLAG_FUA if salt % 2 else 0)
        model[offset : offset + length] = data
        assert h.pread(length, base + offset) == data, (offset, length)
        assert h.pread(len(model), base) == bytes(model), (offset, length)
    h.zero(777, base + 333)
    model[333 : 333 + 777] = bytes(777)
    assert h.pread(len(model), base) == bytes(model)
    # TRIM leaves bytes undefined inside its range only.
    h.trim(10001, base + 30001)
    after = h.pread(len(model), base)
    assert after[:30001] == bytes(model[:30001]) and after[40002:] == bytes(model[40002:])
    h.cache(1000, base + 1)
    h.flush()
    h.shutdown()


def unaligned_in_parallel():
    """Neighbours in one block, in flight together: no read-modify-write may undo another's."""
    h = connect(constraints=False)
    base = 16 << 20
    h.zero(4 << 10, base)
    done = []
    for i in range(4 << 10):
        buf = nbd.Buffer.from_bytearray(bytearray([i & 0xFF or 1]))
        h.aio_pwrite(buf, base + i, lambda error, i=i: (done.append((i, error.value)), 1)[1])
    while h.aio_in_flight():
        h.poll(-1)
    assert len(done) == 4 << 10 and all(error == 0 for _, error in done)
    assert h.pread(4 << 10, base) == bytes(i & 0xFF or 1 for i in range(4 << 10))
    h.shutdown()


def out_of_range():
    h = connect()
    last = pattern(BLOCK, 9)
    h.pwrite(last, SIZE - BLOCK)
    assert h.pread(BLOCK, SIZE - BLOCK) == last
    beyond = [(SIZE, BLOCK), (SIZE - BLOCK, 2 * BLOCK), (SIZE + (1 << 40), BLOCK), ((1 << 63) - BLOCK, BLOCK)]
    for offset, length in beyond:
        refused({errno.EINVAL}, h.pread, length, offset)
        refused({errno.ENOSPC, errno.EINVAL}, h.pwrite, bytes(length), offset)
        refused({errno.ENOSPC, errno.EINVAL}, h.zero, length, offset)
        refused({errno.ENOSPC, errno.EINVAL}, h.trim, length, offset)
    # The payload of a refused write has been read off the socket: the connection goes on.
    assert h.pread(BLOCK, SIZE - BLOCK) == last
    h.shutdown()


def misaligned_in_spite_of_the_constraints():
    """Who asked for the constraints should keep them; who does not is served all the same, and correctly."""
    h = connect()
    base = 24 << 20
    model = bytearray(pattern(4 * BLOCK, 13))
    h.pwrite(bytes(model), base)
    for offset, length in [(1, 1), (BLOCK - 1, 2), (BLOCK + 3, 2 * BLOCK)]:
        data = pattern(length, offset)
        h.pwrite(data, base + offset)
        model[offset : offset + length] = data
        assert h.pread(len(model), base) == bytes(model), (offset, length)
    h.shutdown()


def oversize():
    # An honest error or an end of the connection are both allowed for more than the maximum; a crash is not.
    for attempt in ("read", "write"):
        h = connect()
        try:
            if attempt == "read":
                h.pread(MAX + BLOCK, 0)
            else:
                h.pwrite(bytes(MAX + BLOCK), 0)
            raise AssertionError(f"a {attempt} of {MAX + BLOCK} bytes was accepted")
        except nbd.Error as error:
            known = {errno.EINVAL, errno.ENOMEM, errno.EOVERFLOW, errno.ERANGE, errno.ENOTCONN, errno.EPIPE}
            assert error.errnum in known | {errno.ECONNRESET, 0}, error
    h = connect()
    data = pattern(MAX, 11)
    h.pwrite(data, 0)
    assert h.pread(MAX, 0) == data
    # No payload, so no limit but the export's end.
    h.zero(MAX + BLOCK, 0)
    assert h.pread(MAX, 0) == bytes(MAX)
    h.shutdown()


def unknown_flags_are_refused():
    h = connect()
    refused({errno.EINVAL}, h.pread, BLOCK, 0, 1 << 15)
    h.pread(BLOCK, 0)
    h.shutdown()


def multi_conn():
    """CAN_MULTI_CONN: what one connection has completed, every other one reads."""
    handles = [connect() for _ in range(4)]
    for i in range(64):
        data = pattern(BLOCK, i)
        handles[i % 4].pwrite(data, 32 << 20)
        handles[(i + 1) % 4].flush()
        assert handles[(i + 2) % 4].pread(BLOCK, 32 << 20) == data, i
    for h in handles:
        h.shutdown()


for check in (
    negotiation,
    structured_reads,
    unaligned,
    unaligned_in_parallel,
    out_of_range,
    misaligned_in_spite_of_the_constraints,
    oversize,
    unknown_flags_are_refused,
    multi_conn,
):
    print(check.__name__, flush=True)
    check()
print("corners: all held")
