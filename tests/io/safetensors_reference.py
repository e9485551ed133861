"""The reference library's side: writes one tensor of every dtype, or checks a file that holds the same ones.
usage: safetensors_reference.py write|check FILE"""
import sys

try:
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(error)
    sys.exit(77)

signed = torch.arange(-2, 4, dtype=torch.float32).view(2, 3)
unsigned = torch.arange(0, 6, dtype=torch.int32).view(2, 3)
expected = {
    "Double": signed.double(), "Float": signed, "Half": signed.half(), "BFloat16": signed.bfloat16(),
    "Float8_e4m3fn": signed.to(torch.float8_e4m3fn), "Float8_e5m2": signed.to(torch.float8_e5m2),
    "Long": signed.long(), "Int": signed.int(), "Short": signed.short(), "Char": signed.to(torch.int8),
    "UInt64": unsigned.to(torch.uint64), "UInt32": unsigned.to(torch.uint32), "UInt16": unsigned.to(torch.uint16),
    "Byte": unsigned.to(torch.uint8), "Bool": torch.tensor([False, True, False]),
    "scalar": torch.tensor(2.5), "empty": torch.empty(0, 4, dtype=torch.float16),
}
action, path = sys.argv[1:]
if action == "write":
    save_file(expected, path, metadata={"format": "pt"})
else:
    found = load_file(path)
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        assert torch.equal(found[name].flatten().view(torch.uint8) if value.numel() else found[name],
                           value.flatten().view(torch.uint8) if value.numel() else value), name
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}, file.metadata()
