"""Every error of the product, in one tree; each leaf has an HTTP status and an OpenAI code.

SpeciateError
+-- CallerError                     the caller can mend it
|   +-- InvalidRequest              400 invalid_value
|   |   +-- ContextLengthExceeded   400 context_length_exceeded
|   |   +-- InvalidGrammar          400 invalid_json_schema
|   |   +-- InvalidEncoding         400 invalid_json
|   +-- Unauthorized                401 invalid_api_key
|   +-- NotFound                    404 not_found
|   |   +-- ModelNotFound           404 model_not_found
|   +-- BodyTooLarge                413 request_too_large
|   +-- RangeNotSatisfiable         416 range_not_satisfiable
|   +-- Conflict                    409 conflict
|   +-- WindowInfeasible            400 window_infeasible
|   +-- QuotaExceeded               403 quota_exceeded
+-- CapacityError                   the caller can come again
|   +-- Overloaded                  429 rate_limit_exceeded   (retry_after_s)
|   +-- DeadlineExceeded            504 deadline_exceeded
|   +-- ShuttingDown                503 shutting_down
|   +-- StoreUnavailable            503 store_unavailable     the batch store cannot be reached or written
|   +-- StorageFull                 507 insufficient_storage  no room on the disk
+-- OperatorError                   whoever runs the server can mend it
|   +-- ConfigError                 500 invalid_config
|   +-- LoadFailed                  500 model_load_failed
|   +-- SignalUnavailable           500 signal_unavailable    a live price, machine or carbon source
+-- EngineFailed                    500 engine_failed         a step was lost
+-- InvariantError                  500 internal_error        our bug
"""

from typing import ClassVar

from speciate.core.admission import Room


class SpeciateError(Exception):
    """Says what happened, the value, and what to do. `param` names the offending field where there is one."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class CallerError(SpeciateError):
    status = 400
    code = "invalid_request"


class InvalidRequest(CallerError):
    status = 400
    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class InvalidGrammar(InvalidRequest):
    code = "invalid_json_schema"


class InvalidEncoding(InvalidRequest):
    code = "invalid_json"


class Unauthorized(CallerError):
    status = 401
    code = "invalid_api_key"


class NotFound(CallerError):
    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class BodyTooLarge(CallerError):
    status = 413
    code = "request_too_large"


class RangeNotSatisfiable(CallerError):
    status = 416
    code = "range_not_satisfiable"


class Conflict(CallerError):
    status = 409
    code = "conflict"


class WindowInfeasible(CallerError):
    """A batch that cannot be done in its window; the message says which could be kept.

    Not 409 or 429: the official clients send those again by themselves, and the answer would be the same.
    """

    status = 400
    code = "window_infeasible"


class QuotaExceeded(CallerError):
    status = 403
    code = "quota_exceeded"


class CapacityError(SpeciateError):
    status = 503
    code = "unavailable"


class Overloaded(CapacityError):
    """A queue is full or a promise cannot be kept; `retry_after_s` is when to come again, at most 120. `room` is what
    the tier's queue still takes, where a tier's queue refused."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, retry_after_s: float, param: str | None = None, room: Room | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s
        self.room = room


class DeadlineExceeded(CapacityError):
    status = 504
    code = "deadline_exceeded"


class ShuttingDown(CapacityError):
    status = 503
    code = "shutting_down"


class StoreUnavailable(CapacityError):
    status = 503
    code = "store_unavailable"


class StorageFull(CapacityError):
    status = 507
    code = "insufficient_storage"


class OperatorError(SpeciateError):
    status = 500
    code = "operator_error"


class ConfigError(OperatorError):
    code = "invalid_config"


class LoadFailed(OperatorError):
    code = "model_load_failed"


class SignalUnavailable(OperatorError):
    """A live source could not be read; its last values stay until they are stale."""

    code = "signal_unavailable"


class EngineFailed(SpeciateError):
    status = 500
    code = "engine_failed"


class InvariantError(SpeciateError):
    status = 500
    code = "internal_error"
