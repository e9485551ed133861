"""An independent reader and writer of token files, from the picture in csrc/data/token_file.h.

token_file.py write PATH    writes the documents below
token_file.py read PATH     prints documents, one JSON list of [ids, scored] a line, after one line of the header
"""
import json
import struct
import sys

DOCUMENTS = [[5, 6, 7], [1], [9, 8, 65535, 0], [3, 3]]
MASK = [0, 1, 1, 1, 0, 0, 1, 1, 1, 0]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def header(crc, fields):
    return struct.pack("<8sIIQQIIIIQIII60x", b"SATINTOK", 1, crc, *fields)


def write(path):
    ids = [i for d in DOCUMENTS for i in d]
    starts = [sum(len(d) for d in DOCUMENTS[:k]) for k in range(len(DOCUMENTS))]
    tokens = struct.pack(f"<{len(ids)}H", *ids)
    documents = struct.pack(f"<{len(starts)}Q", *starts)
    mask = sum(m << i for i, m in enumerate(MASK)).to_bytes((len(MASK) + 7) // 8, "little")
    fields = (len(ids), len(starts), 2, 1, 0xC0FFEE, 0, 65536, crc32c(tokens), crc32c(documents), crc32c(mask))
    with open(path, "wb") as f:
        f.write(header(crc32c(header(0, fields)), fields))
        f.write(tokens + bytes(-len(tokens) % 8) + documents + mask)


def read(path):
    data = open(path, "rb").read()
    magic, version, crc, *fields = struct.unpack_from("<8sIIQQIIIIQIII", data)
    num_tokens, num_documents, width, flags, fingerprint, zero, vocab_size, *checksums = fields
    assert magic == b"SATINTOK" and version == 1 and zero == 0 and crc == crc32c(header(0, fields))
    at = 128
    tokens = data[at:at + num_tokens * width]
    at += (len(tokens) + 7) // 8 * 8
    documents = data[at:at + num_documents * 8]
    mask = data[at + len(documents):]
    assert checksums == [crc32c(tokens), crc32c(documents), crc32c(mask) if flags else 0]
    ids = struct.unpack(f"<{num_tokens}{'H' if width == 2 else 'I'}", tokens)
    scored = [mask[i // 8] >> i % 8 & 1 if flags else 1 for i in range(num_tokens)]
    starts = list(struct.unpack(f"<{num_documents}Q", documents)) + [num_tokens]
    print(json.dumps([width, fingerprint, vocab_size]))
    for a, b in zip(starts, starts[1:]):
        print(json.dumps([ids[a:b], scored[a:b]]))


{"write": write, "read": read}[sys.argv[1]](sys.argv[2])
