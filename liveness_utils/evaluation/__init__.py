"""The evaluation's room: arrays of embeddings, scores and labels come in, rates and tables go out.

`taught` measures a linear head on a frozen embedding. Scores are higher for a living face, labels 1 for bona fide.
People are split, never frames: nobody who taught is tested.
"""
