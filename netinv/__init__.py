"""Network inversion of image classifiers with conditioned generators (Suhail and Sethi).

Legend of shapes, used throughout: ``N`` batch, ``K`` number of classes (the paper's n), ``Z`` latent dimension,
``D`` feature dimension, ``C, H, W`` image channels, height, width, ``M`` side of the hot matrix.
"""
