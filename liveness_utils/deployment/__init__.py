"""The deployment's room: a bundle and people's own clips come in, verdicts and what they are worth go out.

`camera` is taught with one's own clips. `benchmark` measures a bundle, and heads taught on a frozen embedding, on imported data sets of real people.
"""
