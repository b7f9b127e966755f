"""How often logging in failed in a row: by account, and by account and network."""

from domain.ids import key_digest
from store.accounts.accounts import SERVER
from store.engine import Collection, Document, Engine, Index, Is

GUESSES = Collection("login_failures", indexes=(Index(("at",)), Index(("account",))))
"""`{id, account, failures, ok_at, at}`, in `SERVER`: `id` is the key of the account's address, or of
it and a network; `failures` in a row, `ok_at` when a login from this network succeeded."""

COLLECTIONS = (GUESSES,)


def _key(account: str, network: str) -> str:
    return key_digest("login network", f"{account}@{network}")


class GuessRepository:
    """Reads and writes the counts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def failures(self, account: str) -> int:
        """How many logins to the account failed since one succeeded."""
        found = await self._engine.get(SERVER, GUESSES, account)
        return int(found["failures"]) if found is not None else 0

    async def network(self, account: str, network: str) -> Document | None:
        """What is known of an account's logins from a network."""
        return await self._engine.get(SERVER, GUESSES, _key(account, network))

    async def failed(self, account: str, network: str, at: str) -> int:
        """Count a failure; how many the account has now."""
        await self._add(_key(account, network), account, at, 1)
        return await self._add(account, account, at, 1)

    async def take_back(self, account: str, network: str) -> None:
        """Count one failure less."""
        for id in (account, _key(account, network)):
            await self._engine.update(
                SERVER, GUESSES, id, inc={"failures": -1}, where={"failures": Is(">", 0)}
            )

    async def _add(self, id: str, account: str, at: str, failures: int) -> int:
        doc = {"id": id, "account": account, "failures": 0, "ok_at": None, "at": at}
        await self._engine.insert_or_get(SERVER, GUESSES, doc)
        changed = await self._engine.update(
            SERVER, GUESSES, id, set={"at": at}, inc={"failures": failures}
        )
        return int(changed["failures"]) if changed is not None else failures

    async def succeeded(self, account: str, network: str, at: str) -> None:
        """Begin to count anew, and remember the network as one of the account's own."""
        id = _key(account, network)
        doc = {
            "id": id,
            "account": account,
            "failures": 0,
            "ok_at": at,
            "at": at,
        }
        await self._engine.insert_or_get(SERVER, GUESSES, doc)
        fresh = {"failures": 0, "ok_at": at, "at": at}
        await self._engine.update(SERVER, GUESSES, id, set=fresh)
        await self._engine.update(SERVER, GUESSES, account, set={"failures": 0, "at": at})

    async def clear(self, account: str) -> None:
        """Begin to count anew, for the account and all networks."""
        for each in await self._engine.find(SERVER, GUESSES, {"account": account}, limit=None):
            await self._engine.update(SERVER, GUESSES, each["id"], set={"failures": 0})

    async def trim(self, before: str) -> int:
        """Forget what was not heard of since."""
        return await self._engine.delete(SERVER, GUESSES, {"at": Is("<", before)})
