"""A file read in a thread, a block ahead: what is slow to come or to decompress."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO


def read_ahead(file: Any, block: int, *under: Any) -> BinaryIO:
    """A buffered file whose next block is read while this one is used.

    A process forked while one is open must open it again: threads do not come along.

    Args:
      file: read in order, from where it stands; closed with this one.
      block: bytes of a read; two of them are held.
      under: what ``file`` reads, where it does not close it itself.
    """
    return io.BufferedReader(_Ahead(file, block, under))


class _Ahead(io.RawIOBase):
    def __init__(self, file: Any, block: int, under: tuple[Any, ...]):
        self._files, self._block = (file, *under), block
        self._thread = ThreadPoolExecutor(1, "scenefeed-ahead")
        self._coming = self._thread.submit(file.read, block)
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._held:
            self._held = memoryview(self._arrived())
            if self._held:
                self._coming = self._thread.submit(self._files[0].read, self._block)
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def _arrived(self) -> bytes:
        try:
            data: bytes = self._coming.result()
            return data
        except (OSError, EOFError):
            raise
        except Exception as e:  # a decompressor's own kind, which no reader of files expects
            raise OSError(str(e)) from e

    def close(self) -> None:
        if not self.closed:
            self._thread.shutdown(cancel_futures=True)
            for file in self._files:
                file.close()
        super().close()
