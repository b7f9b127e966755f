"""Thousands of people in conversations, made in little time: accounts are put into the store."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import aiohttp

from actions.accounts.tokens import Tokens
from domain.clock import SystemClock, timestamp
from domain.ids import new_id
from domain.principals import Role
from server.features import COLLECTIONS
from store.accounts.accounts import USERS
from store.engine import Insert
from store.mongo import MongoEngine

ORG = "default"

AT_ONCE = 16


class Person(NamedTuple):
    """Somebody who can come in."""

    id: str
    token: str


class Room(NamedTuple):
    """A conversation and who is in it."""

    id: str
    people: Sequence[Person]


async def make_people(store_url: str, secret: str, count: int) -> list[Person]:
    """Put accounts into a store, with tokens of nodes that have this secret."""
    clock = SystemClock()
    at = timestamp(clock.now())
    docs: list[dict[str, Any]] = [
        {
            "id": new_id(),
            "email": f"p{number}@example.com",
            "name": f"P{number}",
            "role": Role.MEMBER.value,
            "avatar": None,
            "settings": {},
            "password": "",
            "password_at": at,
            "created_at": at,
            "disabled_at": None,
        }
        for number in range(count)
    ]
    engine = MongoEngine(store_url, COLLECTIONS, clock=clock)
    await engine.start()
    try:
        await engine.write(ORG, [Insert(USERS, doc) for doc in docs])
    finally:
        await engine.stop()
    tokens = Tokens(secret, "parley", "parley", 3600, clock)
    return [
        Person(doc["id"], tokens.access(doc["id"], ORG, Role.MEMBER, new_id())[0]) for doc in docs
    ]


async def open_rooms(
    urls: Sequence[str], people: Sequence[Person], size: int, each: int
) -> list[Room]:
    """Groups of `size`, so that everybody is in `each` of them with people at random."""
    chance = random.Random(len(people))
    circles = []
    for _ in range(each):
        order = chance.sample(people, len(people))
        circles += [order[start : start + size] for start in range(0, len(people), size)]
    turns = asyncio.Semaphore(AT_ONCE)

    async def open_room(number: int, circle: Sequence[Person]) -> Room:
        body = {
            "kind": "group",
            "members": [person.id for person in circle[1:]],
            "client_id": f"room-{number}",
        }
        headers = {"Authorization": f"Bearer {circle[0].token}"}
        url = f"{urls[number % len(urls)]}/api/v1/conversations"
        async with turns, session.post(url, json=body, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            return Room((await answer.json())["id"], circle)

    async with aiohttp.ClientSession() as session:
        return list(await asyncio.gather(*itertools.starmap(open_room, enumerate(circles))))
