"""An independent reader and writer of teacher caches, from the picture in csrc/data/teacher_cache.h.

teacher_cache.py check DIRECTORY ROWS  reads a cache and compares it with ROWS: of each window the int32 ids and fp32
                                       logits, log_total and log_rest that were given to the writer, as raw numbers;
                                       with copies, of each copy, its int32 tokens first
teacher_cache.py write DIRECTORY       writes a cache: a vocabulary of 65537, one id a token, every fp16 <= 0 once
"""
import json
import pathlib
import struct
import sys

import numpy as np

HEADER = "<8sIIIIQQQI12x"
TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def shard(manifest_text, index, first_window, num_windows, payload):
    def header(crc):
        return struct.pack(HEADER, b"SATINTCH", json.loads(manifest_text)["version"], crc, crc32c(manifest_text), index,
                           first_window, num_windows, len(payload) // num_windows, crc32c(payload))
    return header(crc32c(header(0))) + payload


def take(data, at, dtype, count):
    """An array, and where the next one begins; the zeros between them are checked."""
    end = at + count * np.dtype(dtype).itemsize
    after = end + -end % 8
    assert not any(data[end:after])
    return np.frombuffer(data, dtype, count, at), after


def check(directory, rows_path):
    text = (directory / "manifest.json").read_bytes()
    m = json.loads(text)
    tokens, entries, per_shard = m["sequence_length"], m["sequence_length"] * m["top_k"], m["windows_per_shard"]
    copies, id_type = m["copies"] if m["version"] == 2 else 0, "<u2" if m["vocab_size"] <= 65536 else "<u4"
    rows, at_row, num_read = pathlib.Path(rows_path).read_bytes(), 0, 0
    paths = sorted(directory.glob("shard-*.bin"))
    for index, path in enumerate(paths):
        assert path.name == f"shard-{index:05}.bin"
        data = path.read_bytes()
        num_windows = struct.unpack_from(HEADER, data)[6]
        assert num_windows == min(per_shard, m["num_windows"] - num_read)
        assert data == shard(text, index, num_read, num_windows, data[64:])
        at = 64
        for _ in range(num_windows * max(1, copies)):
            if copies:
                copy, at = take(data, at, id_type, tokens)
                assert (copy == np.frombuffer(rows, "<i4", tokens, at_row)).all()
                at_row += 4 * tokens
            ids, at = take(data, at, id_type, entries)
            logits, at = take(data, at, "<f2", entries)
            sums = []
            for _ in range(2):
                values, at = take(data, at, "<f4", tokens)
                sums.append(values)
            given = [np.frombuffer(rows, dtype, n, at_row + 4 * skip) for dtype, n, skip in
                     [("<i4", entries, 0), ("<f4", entries, entries), ("<f4", 2 * tokens, 2 * entries)]]
            at_row += 8 * (entries + tokens)
            wanted = np.where(np.isinf(given[1]), given[1], np.maximum(given[1], -65504)).astype("<f2")
            assert (ids == given[0]).all() and (logits == wanted).all()
            assert np.concatenate(sums).tobytes() == given[2].tobytes()
        assert at == len(data)
        num_read += num_windows
    assert num_read == m["num_windows"] and at_row == len(rows)
    print(f"{num_read} windows in {len(paths)} shards agree")


def write(directory):
    halves = np.concatenate([[0], np.arange(0x8001, 0xFC01)]).astype("<u2")
    tokens = len(halves)
    manifest = {"version": 1, "format": "satin-teacher-cache", "compute_dtype": "float32", "vocab_size": 65537, "top_k": 1,
                "sequence_length": tokens, "num_windows": 1, "windows_per_shard": 1, "data_checksum": 3,
                "tokenizer_fingerprint": 2, "teacher_checksum": 4294967295, "teacher": "a path",
                "attention_across_documents": True, "of a later version": None}
    text = json.dumps(manifest).encode()
    arrays = [65536 - np.arange(tokens).astype("<u4"), halves, np.arange(tokens).astype("<f4") / 8,
              np.full(tokens, -np.inf, "<f4")]
    payload = b"".join(a.tobytes() + bytes(-a.nbytes % 8) for a in arrays)
    directory.mkdir()
    (directory / "manifest.json").write_bytes(text)
    (directory / "shard-00000.bin").write_bytes(shard(text, 0, 0, 1, payload))


{"check": check, "write": write}[sys.argv[1]](pathlib.Path(sys.argv[2]), *sys.argv[3:])
