"""clinalign: make a medical vision-language model say what the image shows, and prove that it does."""

__version__ = "0.1.0"
