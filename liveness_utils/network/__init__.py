"""The network's room: face crops and signals come in, embeddings and scores go out.

`encoder` is the picture encoder that knows ImageNet, and the file it is shipped in.
Crops are uint8 RGB, 112 px, margin 1.7; everything here needs torch and nothing outside this room imports it unasked.
"""
