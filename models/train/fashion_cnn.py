"""Train models/fashion_cnn.py on Fashion-MNIST: `python -m models.train.fashion_cnn`."""

from models.fashion_cnn import FashionCnn
from models.train.classifier import main

if __name__ == "__main__":
    main("fashion_cnn", FashionCnn)
