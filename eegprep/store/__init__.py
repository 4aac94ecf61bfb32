"""The on-disk formats of recordings and corpora, and the only code that writes them."""
