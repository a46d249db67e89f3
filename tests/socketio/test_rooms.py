from __future__ import annotations

import pytest

from steadcast.socketio.rooms import Rooms

CLIENTS = [f"s{number}" for number in range(300)]


def enter(rooms: Rooms, sid: str) -> None:
    rooms.basic_enter_room(sid, "/", None, f"e-{sid}")
    rooms.basic_enter_room(sid, "/", sid)


@pytest.fixture
def rooms() -> Rooms:
    rooms = Rooms()
    for sid in CLIENTS:
        enter(rooms, sid)
    return rooms


def test_a_client_is_found_in_its_rooms_and_in_none_once_it_left(rooms: Rooms) -> None:
    rooms.basic_enter_room("s1", "/", "orders")
    assert rooms.get_rooms("s1", "/") == ["s1", "orders"]
    rooms.basic_leave_room("s1", "/", "orders")
    assert rooms.get_rooms("s1", "/") == ["s1"]
    assert "orders" not in rooms.rooms["/"]


def test_a_client_that_goes_is_in_no_room_and_the_others_stay(rooms: Rooms) -> None:
    rooms.basic_enter_room("s1", "/", "orders")
    rooms.basic_enter_room("s2", "/", "orders")
    rooms.pre_disconnect("s1", "/")
    rooms.basic_disconnect("s1", "/")
    assert rooms.get_rooms("s1", "/") == []
    assert rooms.sid_from_eio_sid("e-s1", "/") is None
    assert list(rooms.rooms["/"]["orders"]) == ["s2"]
    assert rooms.pending_disconnect == {}
    assert len(rooms.rooms["/"][None]) == len(CLIENTS) - 1


def test_a_client_that_goes_costs_a_look_at_its_own_rooms_alone(rooms: Rooms) -> None:
    looked = 0

    class Counted(dict[str, str]):
        def __contains__(self, key: object) -> bool:
            nonlocal looked
            looked += 1
            return super().__contains__(key)

    for name, room in list(rooms.rooms["/"].items()):
        if name is not None:
            rooms.rooms["/"][name] = Counted(room)
    rooms.basic_disconnect("s1", "/")
    assert looked <= 2, "the library looks into each of the 300"


def test_a_room_that_is_closed_is_nobodys(rooms: Rooms) -> None:
    for sid in CLIENTS[:3]:
        rooms.basic_enter_room(sid, "/", "orders")
    rooms.basic_close_room("orders", "/")
    assert all(rooms.get_rooms(sid, "/") == [sid] for sid in CLIENTS[:3])


def test_when_all_have_gone_nothing_is_kept(rooms: Rooms) -> None:
    for sid in CLIENTS:
        rooms.basic_disconnect(sid, "/")
    assert rooms.rooms == {}
    assert rooms.get_rooms("s1", "/") == []
    assert not rooms._of, "no client is kept that is gone"
