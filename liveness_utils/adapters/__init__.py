"""Adapters: a folder of somebody's data into the clip contract, each by its own published layout.

`record` says what a presentation is, `folders` and `public` list them, `store` splits by subject
and writes clips. Nothing here looks at what a picture shows.
"""

from __future__ import annotations

from liveness_utils.adapters import folders, public
from liveness_utils.adapters.record import Layout, Options, Presentation
from liveness_utils.adapters.store import Imported, assign_splits, folds, import_layout, leaks, read_presentation
from liveness_utils.errors import AdapterError

__all__ = [
    "LAYOUTS", "Imported", "Layout", "Options", "Presentation", "assign_splits", "folds", "import_layout", "layout",
    "leaks", "read_presentation",
]  # fmt: skip

LAYOUTS: tuple[Layout, ...] = (
    folders.IMAGES, folders.FRAMES, folders.VIDEOS, folders.RECORDINGS, public.NUAA, public.REPLAY_ATTACK,
    public.REPLAY_MOBILE, public.CASIA_FASD, public.MSU_MFSD, public.OULU_NPU, public.SIW, public.CELEBA_SPOOF,
    public.MAD3D, public.WMCA,
)  # fmt: skip


def layout(name: str) -> Layout:
    """The layout called `name`.

    Raises:
        AdapterError: there is none of that name.

    >>> layout("casia-fasd").title
    'CASIA Face Anti-Spoofing Database'
    """
    known = {held.name: held for held in LAYOUTS}
    if name not in known:
        raise AdapterError(f"No layout is called {name!r}: choose one of {', '.join(known)}.")
    return known[name]
