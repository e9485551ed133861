"""llama.cpp through the C functions that the xllamacpp wheel carries: tokens, logits and greedy text of a GGUF file."""
import ctypes
import os

import numpy as np


def library():
    """The loaded library, or None when xllamacpp is not installed."""
    try:
        import xllamacpp
    except ImportError:
        return None
    return ctypes.CDLL(os.path.join(os.path.dirname(xllamacpp.__file__), "xllamacpp.abi3.so"))


class Parameters(ctypes.Structure):
    """Any parameter structure: larger than all of them, which passing by value in memory allows."""

    _fields_ = [("words", ctypes.c_uint32 * 256)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


LOGGER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class Model:
    def __init__(self, path, context=1024):
        c = self.c = library()
        self.messages = []
        self.logger = LOGGER(lambda level, text, _: self.messages.append(text.decode(errors="replace")))
        c.llama_log_set(self.logger, None)
        for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab", "llama_get_memory"):
            getattr(c, name).restype = ctypes.c_void_p
        c.llama_model_default_params.restype = c.llama_context_default_params.restype = Parameters
        c.llama_batch_init.restype = Batch
        c.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        self.model = c.llama_model_load_from_file(os.fsencode(path), c.llama_model_default_params())
        assert self.model, "".join(self.messages[-20:])
        parameters = c.llama_context_default_params()
        words = parameters.words  # n_ctx, n_batch, n_ubatch, n_seq_max; flash_attn_type (automatic); type_k, type_v (fp16)
        assert [words[i] for i in (0, 1, 2, 3, 13, 26, 27)] == [512, 2048, 512, 1, 2**32 - 1, 1, 1], "another version of llama.cpp"
        words[0] = words[1] = words[2] = context
        words[7] = words[8] = 1  # threads: several wait for each other without end on a busy machine
        words[13] = words[26] = words[27] = 0  # no flash attention, keys and values in fp32
        self.context = c.llama_init_from_model(ctypes.c_void_p(self.model), parameters)
        assert self.context, "".join(self.messages[-20:])
        self.vocabulary = ctypes.c_void_p(c.llama_model_get_vocab(ctypes.c_void_p(self.model)))
        self.num_tokens = c.llama_vocab_n_tokens(self.vocabulary)

    def tokenize(self, text, special=False):
        """Ids of a text, with the BOS that the file asks for when `special`."""
        data = text.encode()
        out = (ctypes.c_int32 * (len(data) + 8))()
        count = self.c.llama_tokenize(self.vocabulary, data, len(data), out, len(out), special, True)
        assert count >= 0, count
        return list(out[:count])

    def text(self, ids):
        out = b""
        for token in ids:
            piece = ctypes.create_string_buffer(256)
            size = self.c.llama_token_to_piece(self.vocabulary, int(token), piece, 256, 0, True)
            out += piece.raw[:size]
        return out.decode(errors="replace")

    def logits(self, ids, past=0, last=False):
        """[T, V] after each token (or the last alone) of a sequence of which `past` tokens were seen already."""
        memory = ctypes.c_void_p(self.c.llama_get_memory(ctypes.c_void_p(self.context)))
        if not past:
            self.c.llama_memory_clear(memory, True)
        batch = self.c.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = int(token), past + i, 1, 0
            batch.logits[i] = not last or i + 1 == len(ids)
        assert self.c.llama_decode(ctypes.c_void_p(self.context), batch) == 0
        rows = [len(ids) - 1] if last else range(len(ids))
        out = np.stack([np.ctypeslib.as_array(self.c.llama_get_logits_ith(ctypes.c_void_p(self.context), i), (self.num_tokens,)) for i in rows]).copy()
        self.c.llama_batch_free(batch)
        return out

    def greedy(self, ids, count):
        ids, past = list(ids), 0
        for _ in range(count):
            row = self.logits(ids[past:], past, last=True)[0]
            past = len(ids)
            ids.append(int(row.argmax()))
        return ids

    def perplexity(self, ids, window=1024):
        """Windows of `window` tokens, one after another, window - 1 predictions each."""
        total, count = 0.0, 0
        for begin in range(0, len(ids) - window + 1, window):
            piece = ids[begin : begin + window]
            rows = self.logits(piece).astype(np.float64)[:-1]
            rows -= rows.max(-1, keepdims=True)
            log_sum = np.log(np.exp(rows).sum(-1))
            total -= (rows[np.arange(len(rows)), piece[1:]] - log_sum).sum()
            count += len(rows)
        return float(np.exp(total / count)), count
