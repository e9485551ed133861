"""Reads TensorBoard event files: read_events.py plain|tensorboard PATH. Prints JSON [[tag, step, value], ...].

plain follows the format's description with nothing but the standard library; tensorboard asks TensorBoard itself.
"""
import json
import os
import struct
import sys


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def fields(data):
    at, found = 0, {}
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 1:
            value, at = struct.unpack("<d", data[at:at + 8])[0], at + 8
        elif kind == 5:
            value, at = struct.unpack("<f", data[at:at + 4])[0], at + 4
        else:
            assert kind == 2, kind
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        found.setdefault(key >> 3, []).append(value)
    return found


def plain(path):
    data, at, rows, versions = open(path, "rb").read(), 0, [], []
    while at < len(data):
        size, crc = struct.unpack("<QI", data[at:at + 12])
        assert crc == masked(data[at:at + 8]), "checksum of the length"
        body = data[at + 12:at + 12 + size]
        assert struct.unpack("<I", data[at + 12 + size:at + 16 + size])[0] == masked(body), "checksum of the data"
        at += 16 + size
        event = fields(body)
        assert event[1][0] > 1e9, "wall time"
        versions += event.get(3, [])
        for summary in event.get(5, []):
            for value in fields(summary)[1]:
                value = fields(value)
                rows.append([value[1][0].decode(), event[2][0], value[2][0]])
    assert at == len(data) and versions == [b"brain.Event:2"], versions
    return rows


def tensorboard(path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    accumulator = EventAccumulator(os.path.dirname(path), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [[tag, e.step, e.value] for tag in accumulator.Tags()["scalars"] for e in accumulator.Scalars(tag)]


print(json.dumps(dict(plain=plain, tensorboard=tensorboard)[sys.argv[1]](sys.argv[2])))
