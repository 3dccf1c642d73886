"""What went wrong with a request, as the client reads it (RFC 9457 problem details).

`UploadError` is raised anywhere in this room; `problem` turns it into a response. No answer that
comes from here ever carries another decision than ``no_decision``.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus

from flask import Response

from liveness_utils.errors import LivenessError


class UploadError(LivenessError):
    """A request that cannot be served, with the status it gets.

    Args:
        status: HTTP status. detail: one sentence on what was wrong and what to do.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, status: int, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after = status, detail, retry_after


def problem(error: UploadError) -> Response:
    """The response for an error: ``application/problem+json`` with type, title, status, detail, decision."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "decision": "no_decision",
    }
    response = Response(json.dumps(body, ensure_ascii=False), error.status, mimetype="application/problem+json")
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return response
