"""Reading ahead: the next batches are made while the devices compute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Prefetch:
    """Batches made by a thread, a few steps ahead.

    Args:
      fetch: `(number) -> batch`.
      number: the first batch's.
      depth: how many are ready, or being made, while the caller computes.
    """

    def __init__(self, fetch: Callable[[int], Any], number: int, depth: int = 2):
        self._fetch, self._next = fetch, number
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._futures: deque[Future[Any]] = deque()
        for _ in range(depth):
            self._submit()

    def _submit(self) -> None:
        self._futures.append(self._pool.submit(self._fetch, self._next))
        self._next += 1

    def get(self) -> Any:
        """The next batch; raises what making it raised."""
        self._submit()
        return self._futures.popleft().result()

    def close(self) -> None:
        """Ends the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
