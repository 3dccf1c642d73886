"""The phone page: a small web service around `runtime` that judges, and on request records, clips.

Uploads come in (`upload`), wait in one line (`judge`), leave as a verdict (`app`) and, with a label
and consent, as clips of the contract (`recorder`); `serve` opens the door.
"""

from liveness_utils.web.app import create_app
from liveness_utils.web.limits import Limits

__all__ = ["Limits", "create_app"]
