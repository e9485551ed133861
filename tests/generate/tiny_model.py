"""A random model with a real tokenizer, and transformers' greedy text: tiny_model.py FOLDER

FOLDER gets a Hugging Face model directory and greedy.json: [{prompt, prompt_ids, ids, text}], new ids only. The model's
end-of-sequence ids are a list, and the first prompt's continuation runs into one of them.
"""
import json
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

TEXT = ["The quick brown fox jumps over the lazy dog. ", "Größe, naïve café, 東京タワー, Привет мир! ", "🦊🐶 emoji 👩‍🚀 and more 🎉. "] * 50
PROMPTS = ["The quick", "東京", "a", "The lazy dog. Größe"]
NEW = 40

folder = sys.argv[1]
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"],
                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
tokenizer.save(folder + "/tokenizer.json")

torch.manual_seed(1)
config = LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, bos_token_id=0,
                     eos_token_id=1, pad_token_id=1, attn_implementation="eager")
model = LlamaForCausalLM(config).eval()


def greedy(prompt, eos):
    ids = [0] + tokenizer.encode(prompt).ids
    out = model.generate(torch.tensor([ids]), max_new_tokens=NEW, do_sample=False, eos_token_id=eos)[0].tolist()
    # What new ids add to the prompt's text, decoded by the `tokenizers` library.
    text = tokenizer.decode(out)[len(tokenizer.decode(ids)):]
    return dict(prompt=prompt, prompt_ids=ids, ids=out[len(ids):], text=text)


free = greedy(PROMPTS[0], [])["ids"]
stop = next(t for i, t in enumerate(free) if i >= 5 and t not in free[:i])
model.config.eos_token_id = [1, stop]
model.generation_config.eos_token_id = [1, stop]
model.save_pretrained(folder)
with open(folder + "/greedy.json", "w") as f:
    json.dump([greedy(p, [1, stop]) for p in PROMPTS], f)
