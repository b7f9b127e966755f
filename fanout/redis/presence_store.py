"""How presence is kept in Redis: the devices of each user by node, and the nodes that live.

All keys of a part carry one hash tag, so a script may touch several of them also in a cluster
(`…` is `<prefix>:{presence:<part>}`):

| key | what |
|---|---|
| `…:nodes` | sorted set of the nodes by the time of their last renewal, in ms of Redis's clock |
| `…:of:["org","user"]` | hash: for each node the user's devices there, in JSON; `#`: number of changes |
| `…:on:<node>` | set of the users who have a field of that node |
| `…:dead` | like `nodes`: those that are dead and not cleared up after yet |
| `…:left:<node>` | what `on` was when the node was found dead |
| `…:sweeper` | the node that clears up after dead ones |

A field counts as long as its node is in `nodes`. A node says each time all it knows of a user, so
saying it twice does no harm. One that was taken for dead and is not finds itself missing there and
says everything again; whom it has said again is no longer cleared away.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from domain.presence.presence import Device
from fanout.redis.servers import RedisServers

ENTRY_TTL = 900
"""Seconds after which a user's entry ends if no node says it again."""

NODES_TTL = 3600
SWEEPER_TTL = 5

AT_ONCE = 200
"""Users of one script: Redis does nothing else meanwhile."""

CHANGES = b"#"
"""The field that counts changes; no node has this name."""

_RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', now - tonumber(ARGV[2])), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return known and 1 or 0
"""
"""1 if the node was known, 0 if not."""

_PUT = """
local node, ttl, change = ARGV[1], ARGV[2], ARGV[3] == '1'
if not redis.call('ZSCORE', KEYS[1], node) then return false end
local function accompanied(key)
    local fields = redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
        if fields[i] ~= node and fields[i] ~= '#' and redis.call('ZSCORE', KEYS[1], fields[i]) then
            for _, device in ipairs(cjson.decode(fields[i + 1])) do
                if not device.gone then return true end
            end
        end
    end
    return false
end
local found = {}
for i = 3, #KEYS do
    local at = 4 + (i - 3) * 3
    local name, value, otherwise = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    found[#found + 1] = 0
    if value == '' then
        redis.call('HDEL', KEYS[i], node)
        redis.call('SREM', KEYS[2], name)
    else
        if otherwise ~= '' and accompanied(KEYS[i]) then
            value = otherwise
            found[#found] = 1
        end
        redis.call('HSET', KEYS[i], node, value)
        redis.call('SADD', KEYS[2], name)
    end
    if change then redis.call('HINCRBY', KEYS[i], '#', 1) end
    redis.call('EXPIRE', KEYS[i], ttl)
end
redis.call('EXPIRE', KEYS[2], ttl)
return found
"""
"""For each user whether the second value was taken, because of devices on other nodes; false if
the node is not known."""

_READ = """
local found, lives = {}, {}
for i = 2, #KEYS do
    local fields, kept = redis.call('HGETALL', KEYS[i]), {}
    for j = 1, #fields, 2 do
        local node = fields[j]
        if lives[node] == nil then
            lives[node] = node == '#' or redis.call('ZSCORE', KEYS[1], node) ~= false
        end
        if lives[node] then
            kept[#kept + 1] = node
            kept[#kept + 1] = fields[j + 1]
        end
    end
    found[#found + 1] = kept
end
found[#found + 1] = redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
return found
"""
"""For each user the fields of living nodes and the number of changes; then whether the node that
asks is known."""

_SWEEP = """
local tag, me = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sweeper = redis.call('GET', KEYS[2])
if sweeper and sweeper ~= me then return false end
redis.call('SET', KEYS[2], me, 'EX', ARGV[5])
local dead = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
if #dead == 0 then
    local before = string.format('%.0f', now - tonumber(ARGV[3]))
    dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', before, 'WITHSCORES', 'LIMIT', 0, 1)
    if #dead == 0 then return false end
    redis.call('ZREM', KEYS[1], dead[1])
    redis.call('ZADD', KEYS[3], dead[2], dead[1])
    redis.call('EXPIRE', KEYS[3], ARGV[6])
    if redis.call('EXISTS', tag .. ':on:' .. dead[1]) == 1 then
        redis.call('RENAME', tag .. ':on:' .. dead[1], tag .. ':left:' .. dead[1])
    end
end
local node = dead[1]
local from, on = tag .. ':left:' .. node, tag .. ':on:' .. node
local lost, kept = {}, {}
for _, name in ipairs(redis.call('SPOP', from, ARGV[4])) do
    local key, left = tag .. ':of:' .. name, false
    if redis.call('SISMEMBER', on, name) == 0 then redis.call('HDEL', key, node) end
    redis.call('HINCRBY', key, '#', 1)
    redis.call('EXPIRE', key, ARGV[6])
    for _, other in ipairs(redis.call('HKEYS', key)) do
        if other ~= '#' and redis.call('ZSCORE', KEYS[1], other) then left = true end
    end
    if left then kept[#kept + 1] = name else lost[#lost + 1] = name end
end
if redis.call('EXISTS', from) == 0 then redis.call('ZREM', KEYS[3], node) end
return {node, dead[2], lost, kept}
"""
"""The node swept, when it was last renewed in ms, who is gone, who is still there; false if there
is nothing to do, or another node does it."""

User = tuple[str, str]
"""An organization and a user."""


class Entry(NamedTuple):
    """What Redis has of a user."""

    changes: int
    by_node: Mapping[str, tuple[Device, ...]]


class Swept(NamedTuple):
    """Users of a dead node, at most `AT_ONCE`."""

    node: str
    renewed: float
    """Unix time of its last renewal."""
    lost: Sequence[User]
    kept: Sequence[User]
    """Who has devices on other nodes."""


class Put(NamedTuple):
    """All devices that a user has on a node."""

    user: User
    devices: Sequence[Device]
    otherwise: Sequence[Device] = ()
    """The same as they are if others are connected to other nodes; empty if that is no matter."""


class PresenceStore:
    """One part of the users, as one node reads and writes it.

    Every method raises RedisError or OSError when Redis is out of reach.
    """

    def __init__(self, servers: RedisServers, tag: str, node: str) -> None:
        """`tag`: begins all keys, with a hash tag in braces."""
        client: Any = servers.client
        self._client = client
        self._tag = tag
        self._node = node
        self._nodes = f"{tag}:nodes"
        self._dead = f"{tag}:dead"
        self._sweeper = f"{tag}:sweeper"
        self._on = f"{tag}:on:{node}"
        self._renew: Any = client.register_script(_RENEW)
        self._put: Any = client.register_script(_PUT)
        self._read: Any = client.register_script(_READ)
        self._sweep: Any = client.register_script(_SWEEP)

    async def renew(self, ago: float = 0.0) -> bool:
        """Say that this node lives, or did so many seconds ago. False if it was not known: then
        nothing of what it put counts.
        """
        args = [self._node, f"{ago * 1000:.0f}", NODES_TTL]
        return bool(await self._renew(keys=[self._nodes], args=args))

    async def put(self, puts: Sequence[Put], *, change: bool) -> Sequence[bool] | None:
        """Say what users have on this node, of at most `AT_ONCE` users; nothing takes it away.
        Returns for each user whether `otherwise` was taken; None if this node is not known and has to be renewed first.

        Args:
            change: count it as a change, for those who look whether there was one.
        """
        args: list[Any] = [self._node, ENTRY_TTL, int(change)]
        for user, devices, otherwise in puts:
            args += [name_of(user), _value(devices), _value(otherwise)]
        keys = [self._nodes, self._on, *(self._of(each.user) for each in puts)]
        found = await self._put(keys=keys, args=args)
        return None if found is None else [bool(each) for each in found]

    async def read(self, users: Sequence[User]) -> tuple[list[Entry], bool]:
        """What all living nodes said of at most `AT_ONCE` users, and whether this node is known."""
        keys = [self._nodes, *(self._of(each) for each in users)]
        *found, known = await self._read(keys=keys, args=[self._node])
        return [_entry(each) for each in found], bool(known)

    async def said(self) -> list[User]:
        """The users of whom Redis has devices on this node."""
        names: Any = await self._client.smembers(self._on)
        return [user_of(each) for each in names]

    async def sweep(self, dead_after: float) -> Swept | None:
        """Take away some users of a node that was not renewed for so many seconds. None if there
        is no such node, or another one does it.
        """
        ms = f"{dead_after * 1000:.0f}"
        args = [self._tag, self._node, ms, AT_ONCE, SWEEPER_TTL, ENTRY_TTL]
        found = await self._sweep(keys=[self._nodes, self._sweeper, self._dead], args=args)
        if found is None:
            return None
        node, renewed, lost, kept = found
        return Swept(
            node.decode(),
            float(renewed) / 1000,
            [user_of(each) for each in lost],
            [user_of(each) for each in kept],
        )

    def _of(self, user: User) -> bytes:
        return f"{self._tag}:of:".encode() + name_of(user)


def name_of(user: User) -> bytes:
    """A user's name in Redis."""
    return orjson.dumps(user)


def user_of(name: bytes) -> User:
    """The user of such a name."""
    org, user = orjson.loads(name)
    return org, user


def _value(devices: Sequence[Device]) -> bytes:
    if not devices:
        return b""
    return orjson.dumps([each._asdict() for each in devices])


def _entry(fields: Sequence[bytes]) -> Entry:
    by_field = dict(zip(fields[::2], fields[1::2], strict=True))
    changes = int(by_field.pop(CHANGES, 0))
    return Entry(
        changes,
        {node.decode(): tuple(map(_device, orjson.loads(v))) for node, v in by_field.items()},
    )


def _device(told: Mapping[str, Any]) -> Device:
    """A device that a node said; what a newer version says beyond it is ignored."""
    return Device(**{name: told[name] for name in Device._fields if name in told})
