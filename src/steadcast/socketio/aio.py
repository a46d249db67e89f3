"""The same bytes to many sockets in one system call: Linux's own asynchronous I/O, io_submit(2).

A write to a socket that doesn't block is done before `io_submit` returns, so nothing here is asynchronous:
what is used of it is that it takes many at once. That spares the way into the kernel and out for each, and
the loop's steps between. The C library has no names for these calls, so they go by their numbers.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import weakref
from array import array
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOM: Final = 256
"""Writes in one call at most. The system shares 65,536 among all (fs.aio-max-nr, see proc(5))."""

PWRITE: Final = 1
"""IOCB_CMD_PWRITE of <linux/aio_abi.h>."""

NUMBERS: Final = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""The numbers of io_setup, io_destroy, io_getevents and io_submit, by machine (<asm/unistd.h>)."""


class Iocb(ctypes.Structure):
    """What is to be done: `struct iocb` of <linux/aio_abi.h>, on a little-endian machine."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("address", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("eventfd", ctypes.c_uint32),
    )


class IoEvent(ctypes.Structure):
    """What came of it: `struct io_event` of <linux/aio_abi.h>; `result` is bytes, or an error below 0."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("iocb", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class Aio:
    """A context of the kernel's, and room for `ROOM` writes. To be used from one thread at a time.

    It is set up by the first who asks whether it is `ready`: to give one back takes the kernel some 30 ms.
    """

    def __init__(self) -> None:
        """Begin without a context."""
        self._context: ctypes.c_ulong | None = None
        self._over = False

    def ready(self) -> bool:
        """Tell whether writes are taken: not on another system, nor where a sandbox refuses."""
        if self._context is None and not self._over:
            try:
                self._open()
            except OSError:
                self._over = True  # the statistics' count of writes that went this way stays at 0
        return not self._over

    def _open(self) -> None:
        numbers = NUMBERS.get(platform.machine())
        if sys.platform != "linux" or numbers is None or sys.maxsize < 1 << 32:
            raise OSError(f"no io_submit on {sys.platform}, {platform.machine()}")
        setup, destroy, self._getevents, self._submit = numbers
        context = ctypes.c_ulong()
        _call(setup, ROOM, ctypes.byref(context))
        self._context = context
        self._destroy = weakref.finalize(self, _destroy, destroy, context)
        self._prepare()

    def close(self) -> None:
        """Give the context back; nothing is taken any more."""
        self._over = True
        if self._context is not None:
            self._destroy()

    def _prepare(self) -> None:
        iocbs, self._events = (Iocb * ROOM)(), (IoEvent * ROOM)()
        first, size = ctypes.addressof(iocbs), ctypes.sizeof(Iocb)
        self._pointers = (ctypes.c_void_p * ROOM)(*range(first, first + size * ROOM, size))
        for index, iocb in enumerate(iocbs):
            iocb.data, iocb.opcode = index, PWRITE
        # A field of all the structures is a column, which is set in one assignment.
        self._descriptors = _column(iocbs, Iocb.descriptor, "I")
        self._addresses = _column(iocbs, Iocb.address, "Q")
        self._lengths = _column(iocbs, Iocb.length, "Q")
        self._indexes = _column(self._events, IoEvent.data, "Q")
        self._results = _column(self._events, IoEvent.result, "q")

    def write(self, data: bytes, descriptors: Sequence[int]) -> dict[int, int]:
        """Write `data` to each socket, once it is `ready`; none of them may block, or be closed.

        Gives those that didn't take all of it: how many bytes they took, by their index. What kept them from
        more (they are full, or broken), their transports meet as soon as they go on.
        """
        short: dict[int, int] = {}
        for first in range(0, len(descriptors), ROOM):
            taken = self._write(data, descriptors[first : first + ROOM])
            short.update((first + index, count) for index, count in taken.items())
        return short

    def _write(self, data: bytes, descriptors: Sequence[int]) -> dict[int, int]:
        count, size = len(descriptors), len(data)
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
        self._descriptors[:count] = memoryview(array("I", descriptors))
        self._addresses[:count] = memoryview(array("Q", [address]) * count)
        self._lengths[:count] = memoryview(array("Q", [size]) * count)
        done = self._submitted(count)
        results = self._results[:done].tolist()
        if results.count(size) == count:
            return {}
        taken = dict(zip(self._indexes[:done].tolist(), results, strict=True))
        left = {index: max(taken.get(index, 0), 0) for index in range(count)}
        return {index: took for index, took in left.items() if took < size}

    def _submitted(self, count: int) -> int:
        """Have the first `count` written, and give how many were tried; their results are there then."""
        try:
            done = _call(self._submit, self._context, ctypes.c_long(count), self._pointers)
        except OSError:
            return 0  # a context that is gone, as behind a fork: the transports write, and are counted
        found = 0
        while found < done:  # once on Linux; a sandbox that plays its kernel may still be writing
            found += self._collect(found, done - found)
        return done

    def _collect(self, first: int, count: int) -> int:
        """Have up to `count` results put behind the `first` ones; gives how many there were."""
        events = ctypes.byref(self._events, first * ctypes.sizeof(IoEvent))
        try:
            return _call(self._getevents, self._context, ctypes.c_long(1), ctypes.c_long(count), events, None)
        except InterruptedError:
            return 0  # by a signal: they are asked for again


def _column(structures: ctypes.Array[Any], field: Any, code: str) -> memoryview:
    """Give one field of all the structures, to be read and set as a whole."""
    cells: memoryview = memoryview(structures).cast("B").cast(code)  # type: ignore[call-overload]  # any code
    return cells[field.offset // field.size :: ctypes.sizeof(structures[0]) // field.size]


def _destroy(number: int, context: ctypes.c_ulong) -> None:
    try:
        _call(number, context)
    except OSError:
        return  # behind a fork, it is its parent's


def _call(number: int, *arguments: Any) -> int:
    """Do a system call; raises OSError."""
    result: int = _syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _load() -> Any:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function


_syscall: Final = _load()
