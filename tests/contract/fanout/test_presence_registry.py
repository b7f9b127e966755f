"""Every sentence of `fanout.presence.PresenceRegistry`, over every registry. Where there is but one
node, nothing comes from another; that is skipped.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from domain.clock import parse_timestamp
from fanout.presence import CHANNELS, LocalPresenceRegistry, Lost
from tests.support.counting import until
from tests.support.redis import RedisProcess, require_redis
from tests.support.registries import Registries, RegistryNode, device

ANN = ("org", "ann")


@pytest.fixture(params=["local", "redis"])
async def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registries]:
    """Each registry under the same tests."""
    if request.param == "local":
        nodes = Registries(None)
        yield nodes
        return
    require_redis()
    with RedisProcess(tmp_path) as redis:
        nodes = Registries(redis.url)
        yield nodes
        await nodes.close()


def several(nodes: Registries) -> None:
    """What only several nodes can show."""
    if nodes.url is None:
        pytest.skip("the registry of a single node: nobody else is there")


async def until_true(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait for a condition that has to be asked for."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


async def until_ids(node: RegistryNode, *ids: str, user: str = "ann") -> None:
    """Wait until these are the devices of a user, as a node sees it."""

    async def there() -> bool:
        return await node.ids(user) == set(ids)

    await until_true(there)


async def swept(node: RegistryNode) -> list[Lost]:
    """Sweep until somebody was lost."""
    lost: list[Lost] = []

    async def found() -> bool:
        await node.registry.renew()
        lost.extend(await node.registry.sweep())
        return bool(lost)

    await until_true(found)
    return lost


async def watching(nodes: Registries, *users: str, looked_again: float = 30.0) -> RegistryNode:
    """A node that watches users, and hears it."""
    node = await nodes.add(looked_again=looked_again)
    for user in users:
        node.registry.watch("org", user)
    if nodes.url is not None:
        await until(lambda: sum("user:" in each for each in node.joined) == len(users))
    node.changed.clear()
    return node


# -- every registry ---------------------------------------------------------------------------


async def test_what_a_node_tells_takes_effect_there_at_once(nodes: Registries) -> None:
    node = await nodes.add()
    node.registry.put(*ANN, device("desk"))
    node.registry.put(*ANN, device("phone", 1))
    assert await node.ids() == {"desk", "phone"}
    node.registry.put(*ANN, device("desk", 0, status="busy"))
    found = await node.device("desk")
    assert found is not None
    assert found.status == "busy"
    node.registry.remove(*ANN, "phone")
    node.registry.remove(*ANN, "unknown")
    assert await node.ids() == {"desk"}


async def test_users_without_devices_are_left_out(nodes: Registries) -> None:
    node = await nodes.add()
    node.registry.put(*ANN, device("desk"))
    node.registry.put("other", "ann", device("theirs"))
    assert set(await node.registry.devices("org", ["ann", "bob"])) == {"ann"}
    assert await node.ids(org="other") == {"theirs"}
    node.registry.remove(*ANN, "desk")
    assert await node.registry.devices("org", ["ann", "bob"]) == {}
    assert await node.registry.devices("org", []) == {}


async def test_calls_for_watched_users_alone(nodes: Registries) -> None:
    node = await watching(nodes, "ann")
    node.registry.put(*ANN, device("desk"))
    node.registry.put("org", "bob", device("his"))
    node.registry.put("other", "ann", device("theirs"))
    assert set(node.changed) == {ANN}
    acts: tuple[Callable[[], None], ...] = (
        lambda: node.registry.put(*ANN, device("desk", idle=True)),
        lambda: node.registry.touch(*ANN),
        lambda: node.registry.remove(*ANN, "desk"),
    )
    for act in acts:
        node.changed.clear()
        act()
        assert node.changed == [ANN]
    node.changed.clear()
    node.registry.unwatch(*ANN)
    node.registry.unwatch(*ANN)
    node.registry.put(*ANN, device("desk"))
    assert node.changed == []


async def test_who_follows_a_stream_here(nodes: Registries) -> None:
    node = await nodes.add()
    node.following["messages/c"] = ["ann", "bob"]
    assert await node.registry.following("messages/c") == {"ann", "bob"}
    assert await node.registry.following("messages/d") == set()


async def test_a_living_node_is_not_swept(nodes: Registries) -> None:
    node = await nodes.add()
    node.registry.put(*ANN, device("desk"))
    for _ in range(3):
        await node.registry.renew()
        assert list(await node.registry.sweep()) == []
    assert await node.ids() == {"desk"}


async def test_nothing_is_called_after_leaving(nodes: Registries) -> None:
    node = await watching(nodes, "ann")
    node.registry.put(*ANN, device("desk"))
    await node.registry.leave(0.0)
    node.changed.clear()
    node.registry.touch(*ANN)
    node.registry.receive('presence:user:["org","ann"]', b"{}")
    node.registry.joined(["presence:all"])
    await asyncio.sleep(0)
    assert node.changed == []


# -- several nodes ----------------------------------------------------------------------------


async def test_devices_of_all_nodes_count(nodes: Registries) -> None:
    several(nodes)
    one, two, three = [await nodes.add() for _ in range(3)]
    one.registry.put(*ANN, device("desk"))
    two.registry.put(*ANN, device("phone", 1, status="busy", idle=True))
    await until_ids(three, "desk", "phone")
    found = await three.device("phone")
    assert found is not None
    assert (found.status, found.idle, found.login, found.gone) == (
        "busy",
        True,
        "login-phone",
        False,
    )
    one.registry.remove(*ANN, "desk")
    await until_ids(three, "phone")
    await until_ids(one, "phone")


async def test_changes_come_from_whichever_node(nodes: Registries) -> None:
    several(nodes)
    here, there = await watching(nodes, "ann"), await nodes.add()
    there.registry.put(*ANN, device("desk"))
    await until(lambda: here.changed == [ANN])
    # Whoever hears of a change finds it.
    assert await here.ids() == {"desk"}
    there.registry.touch(*ANN)
    await until(lambda: here.changed == [ANN, ANN])
    there.registry.remove(*ANN, "desk")
    await until(lambda: here.changed == [ANN] * 3)
    assert await here.ids() == set()


async def test_nodes_hear_only_of_users_whom_they_watch(nodes: Registries) -> None:
    several(nodes)
    here, there = await watching(nodes, "u7"), await nodes.add()
    for number in range(500):
        there.registry.put("org", f"u{number}", device(f"d{number}"))
    there.registry.touch("org", "u7")
    await until_ids(here, "d499", user="u499")
    await until(lambda: bool(here.changed))
    assert set(here.changed) == {("org", "u7")}
    assert {each for each in here.received if "user:" in each} == {'presence:user:["org","u7"]'}
    here.registry.unwatch("org", "u7")
    count = len(here.received)
    there.registry.put("org", "u7", device("more"))
    await until_ids(here, "d7", "more", user="u7")
    assert len(here.received) == count
    assert there.changed == []


async def test_a_device_is_alone_only_if_it_is_so_on_all_nodes(nodes: Registries) -> None:
    several(nodes)
    one, two = await nodes.add(), await nodes.add()
    one.registry.put(*ANN, device("desk"))
    await until_ids(two, "desk")
    two.registry.put(*ANN, device("phone", 1))

    async def known() -> bool:
        told = [await each.device("phone") for each in (one, two)]
        return all(each is not None and not each.alone for each in told)

    await until_true(known)
    # It stays so, whatever comes; and the first one was alone.
    one.registry.remove(*ANN, "desk")
    two.registry.put(*ANN, device("phone", 1, idle=True))
    await until_ids(one, "phone")
    assert await known()
    one.registry.put(*ANN, device("desk", 2))
    first = device("tablet")
    one.registry.put("org", "bob", first)
    await until_ids(two, "tablet", user="bob")
    assert await two.device("tablet", "bob") == first
    two.registry.put("org", "bob", device("watch", 3))
    await until_ids(one, "tablet", "watch", user="bob")
    one.registry.put("org", "bob", first._replace(idle=True))

    async def idle() -> bool:
        found = await two.device("tablet", "bob")
        return found is not None and found.idle and found.alone

    await until_true(idle)


async def test_who_reconnects_alone_is_alone(nodes: Registries) -> None:
    several(nodes)
    one, two = await nodes.add(), await nodes.add()
    one.registry.put(*ANN, device("before", gone=True))
    await until_ids(two, "before")
    two.registry.put(*ANN, device("after", 1))
    await until_ids(one, "before", "after")
    found = await one.device("after")
    assert found is not None
    assert found.alone


async def test_following_is_of_all_nodes(nodes: Registries) -> None:
    several(nodes)
    all_three = [await nodes.add(dead_after=30) for _ in range(3)]
    for number, node in enumerate(all_three):
        await node.follow("messages/c", f"u{number}", "everywhere")
    for node in all_three:
        assert await node.registry.following("messages/c") == {"u0", "u1", "u2", "everywhere"}
        assert await node.registry.following("messages/d") == set()


async def test_following_asks_no_node_where_nobody_does(nodes: Registries) -> None:
    several(nodes)
    one, two, other = [await nodes.add(dead_after=30) for _ in range(3)]
    await two.follow("messages/c", "ann")
    await other.follow("messages/d", "bob")
    assert await one.registry.following("messages/c") == {"ann"}
    assert two.received == ["messages/c"]
    assert other.received == []


async def test_following_waits_long_only_once_for_a_node_that_does_not_answer(
    nodes: Registries,
) -> None:
    several(nodes)
    one, two, mute = [await nodes.add(dead_after=30) for _ in range(3)]
    await two.follow("messages/c", "ann")
    mute.bus.subscribe("messages/c")
    await until(lambda: mute.bus.hears("messages/c"))
    mute.registry = LocalPresenceRegistry()
    loop = asyncio.get_running_loop()
    assert await one.registry.following("messages/c") == {"ann"}
    began = loop.time()
    assert await one.registry.following("messages/c") == {"ann"}
    assert loop.time() - began < 0.7


async def test_following_waits_long_again_after_a_while(
    nodes: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    several(nodes)
    monkeypatch.setattr("fanout.redis.presence_followers.FORGIVEN_AFTER", 0.5)
    one, mute = [await nodes.add(dead_after=30) for _ in range(2)]
    mute.bus.subscribe("messages/c")
    await until(lambda: mute.bus.hears("messages/c"))
    mute.registry = LocalPresenceRegistry()
    loop = asyncio.get_running_loop()
    took = []
    # However often somebody asks meanwhile.
    for _ in range(12):
        began = loop.time()
        await one.registry.following("messages/c")
        took.append(loop.time() - began)
    assert sum(each > 0.9 for each in took[1:]) >= 1


async def test_following_waits_for_nobody_when_its_own_node_comes_or_goes(
    nodes: Registries,
) -> None:
    several(nodes)
    one, two = [await nodes.add(dead_after=30) for _ in range(2)]
    for number in range(50):
        await two.follow(f"messages/{number}", "ann")
    with capture_logs() as logs:
        for number in range(50):
            one.bus.subscribe(f"messages/{number}")
            assert await one.registry.following(f"messages/{number}") == {"ann"}
            one.bus.unsubscribe(f"messages/{number}")
            assert await one.registry.following(f"messages/{number}") == {"ann"}
    assert [each["event"] for each in logs] == []


async def test_a_dead_node_is_swept_once(nodes: Registries) -> None:
    several(nodes)
    one, two, dead = [await nodes.add() for _ in range(3)]
    users = [f"u{number}" for number in range(450)]
    for user in users:
        dead.registry.put("org", user, device(f"on-dead-{user}"))
    one.registry.put("org", "u1", device("elsewhere"))
    await until_ids(one, "on-dead-u449", user="u449")
    one.registry.watch("org", "u1")
    one.changed.clear()
    lost: list[Lost] = []

    async def all_found() -> bool:
        for node in (one, two):
            await node.registry.renew()
        for found in await asyncio.gather(one.registry.sweep(), two.registry.sweep()):
            lost.extend(found)
        return len(lost) >= 449

    await until_true(all_found)
    assert sorted(each.user for each in lost) == sorted(set(users) - {"u1"})
    assert {each.org for each in lost} == {"org"}
    assert set(await one.registry.devices("org", users)) == {"u1"}
    assert await one.ids("u1") == {"elsewhere"}
    assert ("org", "u1") in one.changed
    for node in (one, two):
        await node.registry.renew()
        assert list(await node.registry.sweep()) == []


async def test_a_lost_user_is_seen_when_the_node_was_last_heard_of(nodes: Registries) -> None:
    several(nodes)
    here, dead = await nodes.add(), await nodes.add()
    dead.registry.put(*ANN, device("desk"))
    await until_ids(here, "desk")
    (lost,) = await swept(here)
    assert (lost.org, lost.user) == ANN
    assert 0.9 < time.time() - parse_timestamp(lost.at) < 5


async def test_a_node_that_was_taken_for_dead_says_everything_again(nodes: Registries) -> None:
    several(nodes)
    here, there = await watching(nodes, "ann"), await nodes.add()
    there.registry.put(*ANN, device("desk"))
    await until_ids(here, "desk")
    await swept(here)
    assert await here.ids() == set()
    here.changed.clear()
    await there.registry.renew()
    await until(lambda: ANN in here.changed)
    assert await here.ids() == {"desk"}


async def test_what_is_not_understood_is_refused(nodes: Registries) -> None:
    several(nodes)
    node = await nodes.add()
    for message in (b"", b"[1]", b"3", b'{"question":"q"}', b'{"followers":"q"}'):
        for channel in (f"{CHANNELS}node:{node.registry}", "messages/c"):
            with pytest.raises(ValueError, match=r"."):
                node.registry.receive(channel, message)


async def test_what_a_node_leaves_counts_for_a_while(nodes: Registries) -> None:
    several(nodes)
    here, ends = await nodes.add(dead_after=30), await nodes.add(dead_after=30)
    ends.registry.put(*ANN, device("desk", gone=True))
    await ends.registry.leave(0.7)
    assert await here.ids() == {"desk"}
    loop = asyncio.get_running_loop()
    began = loop.time()
    (lost,) = await swept(here)
    assert (lost.org, lost.user) == ANN
    assert loop.time() - began > 0.5
    assert await here.ids() == set()


async def test_a_change_that_the_bus_lost_is_found(nodes: Registries) -> None:
    several(nodes)
    here, there = await watching(nodes, "ann", looked_again=0.001), await nodes.add()
    assert await here.ids() == set()
    await here.bus.stop()
    there.registry.put(*ANN, device("desk"))

    async def noticed() -> bool:
        await here.registry.renew()
        return bool(here.changed)

    await until_true(noticed)
    await here.ids()
    here.changed.clear()
    there.registry.touch(*ANN)
    await until_true(noticed)
    here.changed.clear()
    await here.registry.renew()
    assert here.changed == []
