"""What an event shows, and to whom."""

import orjson

from domain.events import CLIENT_ID, VEILED, Actor, StoredEvent

DATA = {
    "id": "m",
    "body": 'Say ,"client_id":"x","veiled":["y"] and [z], "veiled":[',
    CLIENT_ID: 'one "two',
    VEILED: ["bob", "cem"],
}


def event(data: object) -> StoredEvent:
    return StoredEvent("messages/c", "e", 3, "message.edited", "", Actor("ann"), orjson.dumps(data))


def shown(told: bytes) -> set[str]:
    data = orjson.loads(told)["data"]
    assert data["body"] == DATA["body"]
    return set(data)


def test_who_is_shown_which_fields() -> None:
    for each in (event(DATA), StoredEvent.from_payload(event(DATA).payload)):
        assert each.veiled == ["bob", "cem"]
        assert shown(each.told_to("ann")) == {"id", "body", CLIENT_ID}
        assert shown(each.told_to("dan")) == shown(each.public) == {"id", "body"}
        assert set(each.content()) == {"id", "body", CLIENT_ID}


def test_an_event_without_secrets_is_told_as_it_is() -> None:
    each = event({"id": "m", "body": DATA["body"]})
    assert each.public is each.own is each.payload
    assert not each.veiled
