"""Looking after a store: evict what is old, check every byte, drop what is damaged. Nothing here prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import batched
from typing import Final

import numpy as np

from whiteboard.errors import CorruptPackageError
from whiteboard.storage.base import VersionStore
from whiteboard.storage.engine import Database
from whiteboard.storage.eviction import STEP_PAGES, evict, give_back, live_bytes
from whiteboard.storage.pages import decode_page
from whiteboard.storage.rows import delete_index, delete_pages, hashes_of, select_index, select_pages
