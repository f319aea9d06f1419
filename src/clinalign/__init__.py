"""clinalign: make a medical vision-language model say what the image shows, and prove that it does."""

from clinalign.threads import settle

__version__ = "0.1.0"

settle()
