"""Train models/fashion_vit.py on Fashion-MNIST: `python -m models.train.fashion_vit`."""

from models.fashion_vit import FashionVit
from models.train.classifier import main

if __name__ == "__main__":
    main("fashion_vit", FashionVit)
