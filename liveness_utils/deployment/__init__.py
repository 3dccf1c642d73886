"""The deployment's room: a bundle and people's own clips come in, verdicts and what they are worth go out.

`teaching` fits a taught `camera` to one's own clips, `settled` says what a challenge makes of a verdict. `benchmark`
measures a bundle, and cameras taught on it, on imported data sets of real people.
"""
