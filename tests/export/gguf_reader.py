"""The GGUF container read with numpy and struct alone."""
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
         14: "Q6_K", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 41: "Q1_0", 42: "Q2_0"}


class File:
    """keys: {name: value}; tensors: {name: (type's name, shape with the slowest first, offset in the data)}; data: bytes."""

    def __init__(self, path):
        self.raw, self.at = open(path, "rb").read(), 0
        assert self.raw[:4] == b"GGUF"
        self.at = 4
        version, num_tensors, num_keys = self.read("I"), self.read("Q"), self.read("Q")
        assert version == 3, version
        self.keys = {}
        for _ in range(num_keys):
            name = self.text()
            self.keys[name] = self.value(self.read("I"))
        self.tensors = {}
        for _ in range(num_tensors):
            name = self.text()
            shape = [self.read("Q") for _ in range(self.read("I"))][::-1]
            self.tensors[name] = (TYPES[self.read("I")], shape, self.read("Q"))
        alignment = self.keys.get("general.alignment", 32)
        self.data = self.raw[-(-self.at // alignment) * alignment :]

    def read(self, code):
        (value,) = struct.unpack_from("<" + code, self.raw, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self):
        size = self.read("Q")
        self.at += size
        return self.raw[self.at - size : self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            kind = self.read("I")
            return [self.value(kind) for _ in range(self.read("Q"))]
        return self.read(SCALARS[kind])
