"""Reading ahead: the next batches are made while the devices compute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Prefetch:
    """Batches made by a thread, a few steps ahead.

    Args:
      fetch: `(*item) -> batch`.
      items: what to fetch, one after the other.
      depth: how many are ready, or being made, while the caller computes.
    """

    def __init__(self, fetch: Callable[..., Any], items: Iterable[tuple[Any, ...]], depth: int = 2):
        self._fetch, self._items = fetch, iter(items)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._futures: deque[Future[Any]] = deque()
        for _ in range(depth):
            self._submit()

    def _submit(self) -> None:
        if (item := next(self._items, None)) is not None:
            self._futures.append(self._pool.submit(self._fetch, *item))

    def get(self) -> Any:
        """The next batch; raises what making it raised."""
        self._submit()
        return self._futures.popleft().result()

    def close(self) -> None:
        """Ends the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
