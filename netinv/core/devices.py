"""What networks compute on where nobody says otherwise."""


def best_device() -> str:
    """A GPU where torch finds one, else the processor."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
