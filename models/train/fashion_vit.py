"""Train models/fashion_vit.py on Fashion-MNIST: `python -m models.train.fashion_vit`."""

from models.fashion_vit import FashionVit
from models.train.classifier import Settings, main

if __name__ == "__main__":
    main("fashion_vit", FashionVit, Settings(steps=3600, batch=64, rate=1e-3, move=1))
