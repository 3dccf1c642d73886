"""What a widget leaves behind on paper: some frames of a presentation with box and score.

A clip and what was shown of it come in; a figure goes out, for pages on which no widget lives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from liveness_utils import plots
from liveness_utils.clips import Clip
from liveness_utils.widget.live import Shown


def filmstrip(clip: Clip, shown: Sequence[Shown], count: int = 6) -> Figure:
    """Draw frames evenly over time, the face's box on them and the streaming score below.

    Args:
        clip: that was played. shown: one `Shown` a frame, see `LivenessWidget.play`.
        count: frames.
    """
    fig, axes = plots.figure(1, count, height=plots.PAGE / count * clip.frames.shape[1] / clip.frames.shape[2] + 0.42)
    for ax, k in zip(np.atleast_1d(axes), np.linspace(0, len(shown) - 1, count).round().astype(int), strict=True):
        seen = shown[k]
        ax.imshow(clip.frames[k])
        ax.set_axis_off()
        if seen.box is not None:
            x, y, w, h = np.array(seen.box) * np.tile(clip.frames.shape[2:0:-1], 2)
            ax.add_patch(Rectangle((x, y), w, h, fill=False, ec="white", lw=1.2))
        score = "no score" if seen.score is None else f"{seen.score:.2f}"
        ax.set_title(f"{seen.t:.1f} s: {score}", fontsize=7)
    return fig
