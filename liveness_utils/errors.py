"""The errors of the package: the lowest room, importing nothing.

Every module raises one of these with one sentence that names the file or value and the remedy.
All derive from `LivenessError`, a `ValueError`: catch that one and reject, never accept.
"""


class LivenessError(ValueError):
    """Base of every error that the package raises on purpose."""


class ConfigError(LivenessError):
    """An unknown profile, parameter or path setting."""


class ClipError(LivenessError):
    """A video, an IMU record or a manifest cannot be used as it is."""


class AdapterError(LivenessError):
    """A folder of data is not laid out as was said, or holds nothing that can be used."""


class MotionError(LivenessError):
    """A trajectory or an IMU was asked for that cannot exist."""


class FaceError(LivenessError):
    """The head model is missing or was given the wrong number of weights."""


class SimulationError(LivenessError):
    """A presentation was asked for that the simulator does not know."""


class LandmarkError(LivenessError):
    """The face landmarker is missing or its model file is damaged."""


class DatasetError(LivenessError):
    """Clips, tracks and features do not fit together."""


class ModelError(LivenessError):
    """The network was given inputs of the wrong shape or a damaged checkpoint."""


class MetricError(LivenessError):
    """Scores and labels from which no rate can be computed."""


class BundleError(LivenessError):
    """A deployment bundle is incomplete, damaged or of another version."""


class CameraError(LivenessError):
    """A camera cannot be taught from these clips, or its file does not fit."""


class SessionError(LivenessError):
    """A live session was fed in the wrong order or with the wrong data."""


class RecordError(LivenessError):
    """A presentation must not be kept: its label is unknown, or nobody consented."""
