"""Traces on both databases: found by either id, forgotten by age and by number."""

from gateway.store import Store
from gateway.store.traces import Kept, find, post, prune


def kept(number: int, key: str = "ann", request: str = "") -> Kept:
    name = f"{number:012x}"
    return Kept(name, f"trace-{number}", request or f"request-{number}", key, name.encode())


def test_a_trace_is_found_by_either_id(store: Store) -> None:
    with store.begin(write=True) as connection:
        post(connection, [kept(1), kept(2)])
    with store.begin() as connection:
        assert find(connection, "trace-1") == find(connection, "request-1") == [b"000000000001"]
        assert find(connection, "request-1", "ann") == [b"000000000001"]
        assert find(connection, "request-1", "bob") == []
        assert find(connection, "nobody's") == []


def test_all_of_a_name_are_found_the_youngest_first(store: Store) -> None:
    with store.begin(write=True) as connection:
        post(connection, [kept(1, request="mine"), kept(3, "bob", "mine"), kept(2, request="mine")])
    with store.begin() as connection:
        assert find(connection, "mine") == [b"000000000003", b"000000000002", b"000000000001"]
        assert find(connection, "mine", "ann") == [b"000000000002", b"000000000001"]


def test_old_ones_and_those_beyond_the_bound_are_forgotten(store: Store) -> None:
    with store.begin(write=True) as connection:
        post(connection, [kept(number) for number in range(1, 11)])
        assert prune(connection, f"{3:012x}", 100) == 2
        assert prune(connection, "", 5) == 3
        assert prune(connection, "", 5) == 0
        assert not find(connection, "trace-5")
        assert find(connection, "trace-6")
