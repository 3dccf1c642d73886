"""What the page lets in: sizes, times and rates, in one place.

Every other module of this room takes a `Limits`; nothing here depends on anything.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one upload, one address and all of them together in check.

    Attributes:
        body_bytes: of a whole request. max_seconds, max_frames: of a video.
        pixels: of one frame as it is coded. side: longer side in pixels to which frames are
            shrunk. decoded_bytes: of all frames of a clip in memory.
        decode_seconds: that decoding one video may take.
        imu_samples: of a clip.
        queue: uploads that wait or are being judged; one more is sent away.
        wait_seconds: that a request waits for its verdict. retry_seconds: told to who is sent away.
        session_seconds: life of a nonce. open_sessions: nonces not yet used.
        clips_per_minute, sessions_per_minute: of one address. burst: of these at once.
        addresses: remembered by the rate limiter.
    """

    body_bytes: int = 12_000_000
    max_seconds: float = 14.0
    max_frames: int = 500
    pixels: int = 1920 * 1088
    side: int = 640
    decoded_bytes: int = 450_000_000
    decode_seconds: float = 8.0
    imu_samples: int = 6000
    queue: int = 8
    wait_seconds: float = 60.0
    retry_seconds: int = 2
    session_seconds: float = 60.0
    open_sessions: int = 512
    clips_per_minute: float = 30.0
    sessions_per_minute: float = 60.0
    burst: int = 10
    addresses: int = 4096


LIMITS = Limits()


class RateLimiter:
    """A token bucket for each address; the longest unseen is forgotten first.

    Args:
        per_minute: tokens a minute. burst: tokens a bucket holds. addresses: buckets kept.
        clock: of seconds that never goes back.
    """

    def __init__(
        self, per_minute: float, burst: int, addresses: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._kept, self._clock = per_minute / 60.0, float(burst), addresses, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, address: str) -> float:
        """Take a token; returns 0.0, or the seconds until there is one.

        >>> limiter = RateLimiter(60, 1, 10, clock=lambda: 0.0)
        >>> limiter.wait("a"), limiter.wait("a"), limiter.wait("b")
        (0.0, 1.0, 0.0)
        """
        with self._lock:
            now = self._clock()
            tokens, then = self._buckets.pop(address, (self._burst, now))
            tokens = min(self._burst, tokens + (now - then) * self._rate)
            taken = tokens >= 1.0
            self._buckets[address] = (tokens - 1.0 if taken else tokens, now)
            while len(self._buckets) > self._kept:
                self._buckets.popitem(last=False)
            return 0.0 if taken else (1.0 - tokens) / self._rate
