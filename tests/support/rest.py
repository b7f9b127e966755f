"""REST for tests: `Api(server.url)`, and accounts made through it."""

import secrets
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

PASSWORD = "Correct horse 7 battery"


@dataclass
class Reply:
    """An answer, read whole."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return orjson.loads(self.body)

    def expect(self, status: int) -> Any:
        """The decoded body (None if there is none) of an answer that must have this status."""
        assert self.status == status, f"{self.status} instead of {status}: {self.body[:2000]!r}"
        return self.json if self.body else None


@dataclass
class Account:
    """A registered user with its tokens."""

    email: str
    password: str
    user: dict[str, Any]
    token: str
    """The access token."""
    refresh_token: str
    api: "Api" = field(repr=False)
    """Speaks as this user."""

    @property
    def id(self) -> str:
        """The user's id."""
        return str(self.user["id"])


class Api:
    """Requests to `/api/v1` of one server, as nobody or as the owner of a token."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.token = token
        self._session: aiohttp.ClientSession | None = None
        self._children: list[Api] = []

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: Any = None,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request. A path without `/api/` or with a leading `//` is under `/api/v1`.

        `//health/live` is at the root; `/users/me` under `/api/v1`.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=True)
        full = path[1:] if path.startswith("//") else f"/api/v1{path}"
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if json is not None:
            data = orjson.dumps(json)
            sent["Content-Type"] = "application/json"
        async with self._session.request(
            method,
            self.url + full,
            data=data,
            params=params,
            headers={**sent, **(headers or {})},
            allow_redirects=False,
        ) as answer:
            names = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status, names, await answer.read())

    async def get(self, path: str, status: int = 200, **params: Any) -> Any:
        """GET; the decoded body of an answer with this status. Parameters go to the query."""
        query = {name: str(value) for name, value in params.items()}
        return (await self.request("GET", path, params=query)).expect(status)

    async def post(self, path: str, json: Any = None, status: int = 200) -> Any:
        """POST JSON; the decoded body of an answer with this status."""
        return (await self.request("POST", path, json={} if json is None else json)).expect(status)

    async def put(self, path: str, json: Any = None, status: int = 200) -> Any:
        """PUT JSON; the decoded body of an answer with this status."""
        return (await self.request("PUT", path, json={} if json is None else json)).expect(status)

    async def patch(self, path: str, json: Any = None, status: int = 200) -> Any:
        """PATCH JSON; the decoded body of an answer with this status."""
        return (await self.request("PATCH", path, json=json or {})).expect(status)

    async def delete(self, path: str, status: int = 204) -> Any:
        """DELETE; the decoded body of an answer with this status."""
        return (await self.request("DELETE", path)).expect(status)

    async def register(self, name: str = "Ann", *, email: str | None = None) -> Account:
        """A new user with a random address."""
        email = email or f"{name.lower()}.{secrets.token_hex(6)}@example.com"
        body = {"email": email, "password": PASSWORD, "name": name}
        return self._account(email, await self.post("/auth/register", body, 201))

    async def login(self, email: str, password: str = PASSWORD) -> Account:
        """A new session of a user."""
        body = {"email": email, "password": password}
        return self._account(email, await self.post("/auth/login", body), password)

    def _account(self, email: str, answer: dict[str, Any], password: str = PASSWORD) -> Account:
        api = Api(self.url, answer["access_token"])
        self._children.append(api)
        return Account(
            email, password, answer["user"], answer["access_token"], answer["refresh_token"], api
        )

    async def close(self) -> None:
        """Close the connections, also those of the accounts made here."""
        for child in self._children:
            await child.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
