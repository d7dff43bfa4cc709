"""Which errors of MLflow mean not now, and which mean never."""

from __future__ import annotations

import sys

# What asking again cannot mend: the operation itself is not to MLflow's liking.
_REFUSALS = frozenset(
    {
        "BAD_REQUEST",
        "ENDPOINT_NOT_FOUND",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "NOT_IMPLEMENTED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)
_PASSING_STATUS = frozenset({401, 403, 408, 429})

# Databases and artifact stores raise errors of their own; each is known only where its library has been imported.
_STORE_ERRORS = {
    "sqlalchemy.exc": ("SQLAlchemyError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "boto3.exceptions": ("Boto3Error",),
    "google.api_core.exceptions": ("GoogleAPIError",),
    "azure.core.exceptions": ("AzureError",),
}


def failures() -> tuple[type[Exception], ...]:
    """What MLflow and the stores behind it raise when they are away (errors of requests are OSErrors)."""
    from mlflow.exceptions import MlflowException

    known = [
        getattr(sys.modules[module], name)
        for module, names in _STORE_ERRORS.items()
        if module in sys.modules
        for name in names
    ]
    return (MlflowException, OSError, ImportError, *known)


def is_refusal(error: Exception) -> bool:
    """Whether the same operation would fail again, however often it is tried.

    Args:
        error: One of `failures()`.
    """
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in _PASSING_STATUS
    return isinstance(error, ImportError) or getattr(error, "error_code", None) in _REFUSALS
