"""A crew of threads that go through one compiled function together, phase after phase.

Each member calls the function with its own number. Between two phases they meet at a barrier in
machine code: they spin for some microseconds, since the others are rarely late, and after that
give their core away at each turn, so that a busy machine slows them down only in proportion.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from model.network.machine_code import INT, LONG, compile_function, ir

SPINS = 4000  # turns of waiting, about 10 µs, before a member gives its core away


class Member(NamedTuple):
    """What a compiled function must know to share and to wait: call(meet, barrier, size)."""

    number: int
    size: int
    meet: int  # address of `emit_meet`'s code
    barrier: int  # address of two integers


class Crew:
    """The calling thread and size - 1 sleeping ones."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = np.zeros(2, np.int64)
        self._wake = [threading.Semaphore(0) for _ in range(1, size)]
        self._task: Callable[[Member], Any] = lambda member: None
        for number, wake in enumerate(self._wake, start=1):
            serve = threading.Thread(target=self._serve, args=(number, wake), daemon=True)
            serve.start()

    def run(self, task: Callable[[Member], Any]) -> None:
        """task(member) in every thread. The task must end with a meeting."""
        self._task = task
        for wake in self._wake:
            wake.release()
        task(self._member(0))

    def _serve(self, number: int, wake: threading.Semaphore) -> None:
        while True:
            wake.acquire()
            self._task(self._member(number))

    def _member(self, number: int) -> Member:
        return Member(number, self.size, meeting(), self._barrier.ctypes.data)


@cache
def meeting() -> int:
    """The address of the compiled barrier."""
    return compile_function(emit_meet(), "meet")


def emit_meet() -> ir.Module:
    """meet(barrier, size): return when `size` threads have called it.

    The barrier is [arrived, round]. The last to arrive opens the next round; the others watch it.
    """
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [LONG, LONG]), "meet")
    address, size = function.args
    names = ("", "last", "wait", "idle", "spin", "yield", "done")
    entry, last, wait, idle, spin, give_way, done = map(function.append_basic_block, names)

    b = ir.IRBuilder(entry)
    arrived = b.inttoptr(address, LONG.as_pointer())
    round_ = b.inttoptr(b.add(address, LONG(8)), LONG.as_pointer())
    before = b.load_atomic(round_, "acquire", 8)
    others = b.atomic_rmw("add", arrived, LONG(1), "acq_rel")
    b.cbranch(b.icmp_signed("==", b.add(others, LONG(1)), size), last, wait)

    b = ir.IRBuilder(last)
    b.store_atomic(LONG(0), arrived, "monotonic", 8)
    b.store_atomic(b.add(before, LONG(1)), round_, "release", 8)
    b.ret_void()

    b = ir.IRBuilder(wait)
    turn = b.phi(LONG)
    turn.add_incoming(LONG(0), entry)
    b.cbranch(b.icmp_signed("==", b.load_atomic(round_, "acquire", 8), before), idle, done)

    b = ir.IRBuilder(idle)
    next_turn = b.add(turn, LONG(1))
    b.cbranch(b.icmp_signed("<", turn, LONG(SPINS)), spin, give_way)

    b = ir.IRBuilder(spin)
    turn.add_incoming(next_turn, spin)
    b.branch(wait)

    b = ir.IRBuilder(give_way)
    b.call(b.inttoptr(LONG(yield_address()), ir.FunctionType(INT, []).as_pointer()), [])
    turn.add_incoming(next_turn, give_way)
    b.branch(wait)

    ir.IRBuilder(done).ret_void()
    return module


def yield_address() -> int:
    """The system's call for giving the core to another thread."""
    if os.name == "nt":
        function = ctypes.WinDLL("kernel32").SwitchToThread  # type: ignore[attr-defined]
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
