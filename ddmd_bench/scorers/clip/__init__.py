"""Scorers on CLIP: HPS v2, CLIPScore, PickScore, and the LAION aesthetic predictor.

`transforms` is what each reference does to an image, `tokens` to a prompt, `network` holds the two
towers, `scorer` the published rows and their cosine, `aesthetic` the one that reads no prompt.
"""
