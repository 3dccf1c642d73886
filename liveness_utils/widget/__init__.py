"""The webcam widget: a browser's camera and motion sensors in a notebook, judged in the kernel.

Frames and IMU samples come up from `live.js` by message; scores, boxes, cues and verdicts of one
`runtime.LivenessSession` go down. Nothing is stored unless the reader asks for it.
"""

from liveness_utils.widget.live import LivenessWidget, Shown

__all__ = ["LivenessWidget", "Shown"]
