"""MongoDB's errors as this store's."""

import contextlib
from collections.abc import Iterator

from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidOperation,
    OperationFailure,
    WaitQueueTimeoutError,
    WriteConcernError,
)

from domain.errors import Unavailable

_TEMPORARY = {
    11600,  # InterruptedAtShutdown
    11602,  # InterruptedDueToReplStateChange
    10107,  # NotWritablePrimary
    13435,  # NotPrimaryNoSecondaryOk
    13436,  # NotPrimaryOrSecondary
    14031,  # OutOfDiskSpace
    189,  # PrimarySteppedDown
    202,  # NetworkInterfaceExceededTimeLimit
    262,  # ExceededTimeLimit
    50,  # MaxTimeMSExpired
    6,  # HostUnreachable
    7,  # HostNotFound
    89,  # NetworkTimeout
    91,  # ShutdownInProgress
    9001,  # SocketException
    112,  # WriteConflict
    133,  # FailedToSatisfyReadPreference
    134,  # ReadConcernMajorityNotAvailableYet
}
"""Codes of a server that may do the same a little later."""

AWAY = "The store cannot be reached."


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Turn what says that the store is out of reach, full or busy into `Unavailable`."""
    try:
        yield
    except (
        ConnectionFailure,
        ExecutionTimeout,
        WaitQueueTimeoutError,
        WriteConcernError,
        InvalidOperation,  # the client was closed
    ) as error:
        raise Unavailable(AWAY) from error
    except BulkWriteError as error:
        if error.details.get("writeConcernErrors") and not error.details.get("writeErrors"):
            raise Unavailable(AWAY) from error
        raise
    except OperationFailure as error:
        if error.code in _TEMPORARY or error.has_error_label("RetryableWriteError"):
            raise Unavailable(AWAY) from error
        raise
