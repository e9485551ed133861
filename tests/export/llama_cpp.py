"""llama.cpp through the C functions that the xllamacpp wheel carries: tokens and logits."""
import ctypes
import os


def library():
    """The loaded library, or None when xllamacpp is not installed."""
    try:
        import xllamacpp
    except ImportError:
        return None
    return ctypes.CDLL(os.path.join(os.path.dirname(xllamacpp.__file__), "xllamacpp.abi3.so"))
