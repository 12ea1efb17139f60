"""Floor: models are read, compressed block by block, and written.

Rooms from the bottom: ``numbers`` and ``text``, ``model``, ``measure``, ``pipeline``, ``solve``, ``rotate``
and ``train``, ``prune``, ``passes``; on top of them the files of this folder. Import ``api.compress_model``
and ``api.plan_model``. The package itself is called with a model in memory, as
``edgepress.compress(model, tokenizer)``.

Raises:
    EdgepressError, InputError: as :func:`edgepress.compress.in_memory.compress_in_memory`.
"""

import sys
from types import ModuleType
from typing import Any


class _Called(ModuleType):
    def __call__(self, model: Any, tokenizer: Any = None, **options: Any) -> Any:
        from .in_memory import compress_in_memory

        return compress_in_memory(model, tokenizer, **options)


sys.modules[__name__].__class__ = _Called
