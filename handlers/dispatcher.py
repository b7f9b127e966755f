"""The one way from a request to an action: permission, rate limit, validation, the call, metrics."""

import time
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, Protocol, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from domain.accounts.accounts import network_of
from domain.errors import (
    FieldError,
    Forbidden,
    Internal,
    Invalid,
    ParleyError,
    RateLimited,
)
from domain.principals import Principal, Role
from handlers.command import Command
from handlers.context import Context

log = structlog.get_logger(__name__)

Model = TypeVar("Model", bound=BaseModel)

MAX_ERRORS = 50
"""Wrong fields that an answer names."""


class Limiter(Protocol):
    """Where rate limits are counted."""

    async def take(self, bucket: str, key: str) -> float:
        """Take one from a bucket: 0 if there was one, else the seconds until there will be."""
        ...


class CommandObserver(Protocol):
    """Where commands are measured."""

    def command(self, name: str, outcome: str, seconds: float) -> None:
        """One command ended; `outcome` is `ok` or an error's code."""
        ...


class Dispatcher:
    """Carries out declared commands."""

    def __init__(self, limiter: Limiter, observer: CommandObserver) -> None:
        self._limiter = limiter
        self._observer = observer

    async def admit(self, command: Command, context: Context) -> None:
        """Look at permission and rate limit alone, for who has yet to read what is asked: what is
        refused need not be read. Then `run` it as admitted.

        Raises:
            ParleyError: always of this kind, whatever went wrong.
        """
        started = time.perf_counter()
        try:
            await self._admit(command, context)
        except Exception as error:
            answer = _answer(error, command, context)
            self._observer.command(command.name, answer.code, time.perf_counter() - started)
            if answer is error:
                raise
            raise answer from error

    async def run(
        self,
        command: Command,
        context: Context,
        payload: Any,
        *,
        strict: bool = True,
        admitted: bool = False,
    ) -> Any:
        """Carry out one command.

        Args:
            payload: the request as decoded from JSON, or gathered from path, query and body.
            strict: False if values may have come as text, as those of a query do.
            admitted: whether `admit` has let it pass.

        Raises:
            ParleyError: always of this kind, whatever went wrong.
        """
        started = time.perf_counter()
        outcome = "ok"
        try:
            if not admitted:
                await self._admit(command, context)
            return await command.run(context, validate(command.request, payload, strict=strict))
        except ParleyError as error:
            outcome = error.code
            raise
        except Exception as error:
            outcome = Internal.code
            raise _answer(error, command, context) from error
        finally:
            self._observer.command(command.name, outcome, time.perf_counter() - started)

    async def _admit(self, command: Command, context: Context) -> None:
        if command.role is not None:
            _permit(context.principal, command.role)
        caller = network_of(context.remote) if context.anonymous else context.principal.user
        wait = await self._limiter.take(command.name, caller)
        if wait > 0:
            raise RateLimited(f"Too many {command.name} requests.", retry_after=wait)


def _answer(error: Exception, command: Command, context: Context) -> ParleyError:
    """What the caller is told of an error; what is none of theirs is logged."""
    if isinstance(error, ParleyError):
        return error
    log.error("command_failed", command=command.name, request_id=context.request_id, exc_info=error)
    return Internal("Something went wrong here; it has been logged.")


def _permit(principal: Principal, least: Role) -> None:
    if least is not Role.GUEST and not principal.role.at_least(least):
        raise Forbidden(f"This needs the role {least} or more.")


def validate(model: type[Model], payload: Any, *, strict: bool = False) -> Model:
    """The request as its model. With `strict`, "1" is no number and 1 no boolean.

    Raises:
        Invalid: with one entry per wrong, missing or undeclared field.
    """
    if payload is None:
        payload = {}
    if type(payload) is not dict:
        raise Invalid("A command takes one object.")
    if len(payload) > _most_fields(model):
        # The model would look at each of them, and hold everybody else up for as long.
        raise _invalid(list(islice(_unknown(model, payload), MAX_ERRORS)))
    try:
        return model.model_validate(payload, strict=strict)
    except ValidationError as error:
        raise _invalid(field_errors(error)) from None
    except RecursionError:
        # An enumeration quotes what it is not, however deep that is.
        raise Invalid("The request is nested too deeply.") from None


@cache
def _most_fields(model: type[BaseModel]) -> int:
    # The model gathers them anew each time it is asked.
    return len(model.model_fields) + MAX_ERRORS


def _unknown(model: type[BaseModel], payload: Mapping[str, Any]) -> Iterator[FieldError]:
    for name in payload:
        if name not in model.model_fields:
            yield {"field": name[:200] or "request", "message": "unknown field"}


def _invalid(found: list[FieldError]) -> Invalid:
    summary = "; ".join(f"{each['field']}: {each['message']}" for each in found[:3])
    return Invalid(summary, errors=found)


def field_errors(error: ValidationError) -> list[FieldError]:
    """What pydantic found, one entry per field, without echoing what was sent."""
    found: list[FieldError] = []
    for each in error.errors(include_url=False, include_input=False, include_context=False)[
        :MAX_ERRORS
    ]:
        name = ".".join(str(part) for part in each["loc"])[:200] or "request"
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            message = "unknown field"
        found.append({"field": name, "message": message})
    return found
