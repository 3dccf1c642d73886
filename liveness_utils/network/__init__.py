"""The network's room: face crops and signals come in, embeddings and scores go out.

`encoder` knows ImageNet and is frozen, `fusion` is the network, `training` and `picture_training` fit it, `scoring` runs it.
Crops are uint8 RGB, 112 px, margin 1.7; everything here needs torch and nothing outside this room imports it unasked.
"""
