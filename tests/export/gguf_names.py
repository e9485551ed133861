"""llama.cpp's names of tensors -> Hugging Face's, and its order of rows."""
import re

NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def placed(tensor, tensors, architecture, config):
    """The Hugging Face name of a GGUF tensor, and that tensor's rows in llama.cpp's order."""
    module, kind = tensor.rsplit(".", 1)
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)", module)
    name = f"model.layers.{found[1]}.{NAMES[found[2]]}.{kind}" if found else f"{OUTSIDE[module]}.{kind}"
    rows = tensors[name]
    if architecture == "llama" and found and found[2] in ("attn_q", "attn_k"):
        heads = config["num_attention_heads" if found[2] == "attn_q" else "num_key_value_heads"]
        rows = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
    return name, rows
