"""Trains tokenizers with the `tokenizers` library and writes what it makes of hard text.

usage: reference.py OUT_DIR KIND MEGABYTES       train KIND, then use it
       reference.py OUT_DIR --given DIR FILE...  use DIR/tokenizer.json on the files' text

OUT_DIR gets tokenizer.json, text.bin (documents, each a u32 length and UTF-8 bytes), ids.bin (u32 count and u32 ids a
document), spans.bin (for the first documents: u32 count, then u32 begin and end in bytes a token), decoded.bin (as
text.bin: decode(ids, skip_special_tokens=False)) and decoded_skip.bin.
"""
import random
import struct
import sys
import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPAN_DOCUMENTS = 300


def words(rng, alphabet, low, high, n):
    return ["".join(rng.choice(alphabet) for _ in range(rng.randint(low, high))) for _ in range(n)]


class HardText:
    """Documents that break tokenizers, drawn at random."""

    def __init__(self, seed):
        rng = self.rng = random.Random(seed)
        latin = "etaoinshrdlucmfwypvbgkjqxz"
        self.common = words(rng, latin[:12], 1, 9, 400)
        self.sources = [p for p in sorted(Path(random.__file__).parent.glob("*.py")) if p.stat().st_size < 200_000]
        self.makers = [self.prose, self.prose, self.prose, self.code, self.code, self.scripts, self.combining, self.emoji,
                       self.long_words, self.spaces, self.numbers, self.control, self.specials, self.anything]

    def document(self):
        text = "".join(self.rng.choice(self.makers)() for _ in range(self.rng.randint(1, 4)))
        return text or " "

    def prose(self):
        rng, out = self.rng, []
        for _ in range(rng.randint(5, 200)):
            word = rng.choice(self.common) if rng.random() < .8 else words(rng, "abcdefghijklmnopqrstuvwxyzéèüñßøž", 2, 14, 1)[0]
            if rng.random() < .1:
                word = word.capitalize() if rng.random() < .7 else word.upper()
            if rng.random() < .05:
                word += rng.choice(["'s", "'t", "'ll", "'RE", "'Ve", "'d", "’s", "'ſ", "n't", "'m"])
            out.append(word + rng.choice([" "] * 12 + [", ", ". ", "! ", "? ", "; ", " - ", "\n", "\n\n", "… ", ".) "]))
        return "".join(out)

    def code(self):
        path = self.rng.choice(self.sources)
        lines = path.read_text("utf-8", errors="replace").splitlines(keepends=True)
        start = self.rng.randrange(max(1, len(lines)))
        text = "".join(lines[start:start + self.rng.randint(5, 60)])
        return text.replace("\n", "\r\n") if self.rng.random() < .3 else text.replace("    ", "\t") if self.rng.random() < .2 else text

    def scripts(self):
        blocks = [(0x4E00, 0x9FFF), (0x3041, 0x30FF), (0xAC00, 0xD7A3), (0x0621, 0x064A), (0x0904, 0x0939), (0x0410, 0x044F),
                  (0x0E01, 0x0E3A), (0x05D0, 0x05EA), (0x0B85, 0x0BB9), (0x10A0, 0x10FF), (0x20000, 0x2A6D0), (0x1100, 0x11FF),
                  (0xFF01, 0xFF5E), (0x1E00, 0x1EFF), (0x0370, 0x03FF), (0x31350, 0x323AF), (0xF900, 0xFAFF)]
        low, high = self.rng.choice(blocks)
        few = [chr(self.rng.randint(low, high)) for _ in range(40)]
        return "".join(self.rng.choice(few) if self.rng.random() < .9 else self.rng.choice(" 。，،.!\n\u3000\u200c")
                       for _ in range(self.rng.randint(10, 300)))

    def combining(self):
        rng = self.rng
        marks = [chr(c) for c in (*range(0x300, 0x345), 0x5B0, 0x5BC, 0x64B, 0x651, 0x93C, 0x94D, 0x93E, 0x940, 0xE31, 0x9BE,
                                  0x9D7, 0xDCF, 0x1AB0, 0x20D0, 0x3099, 0x302A, 0x1161, 0x11A8, 0x1D165, 0x334, 0x345)]
        bases = "aeouAEOUcnsyzKÅq1 \u0915\u0921\u0928\u09C7\u0DD9\u304B\u1100\u1112\u0627\u212B\u2126\u0958\u1EB6\uAC00\u0344"
        out = []
        for _ in range(rng.randint(5, 80)):
            out.append(rng.choice(bases) + "".join(rng.choice(marks) for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3, 8]))))
        text = "".join(out)
        return unicodedata.normalize(rng.choice(["NFC", "NFD"]), text) if rng.random() < .4 else text

    def emoji(self):
        some = ["👨‍👩‍👧‍👦", "👩🏽‍💻", "🏳️‍🌈", "🇩🇪", "🇯🇵", "❤️‍🔥", "🤷🏿‍♂️", "1️⃣", "☃", "😀", "🧑‍🚀", "🫠", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "™️", "🫨", "🩷"]
        return "".join(self.rng.choice(some) + self.rng.choice(["", "", " ", "!", "\u200d"]) for _ in range(self.rng.randint(1, 30)))

    def long_words(self):
        rng = self.rng
        n = rng.choice([50, 200, 1000, 5000])
        kind = rng.randrange(4)
        if kind == 0:
            return rng.choice("aA=-_.é中 0") * n
        if kind == 1:
            return "".join(rng.choice("ACGT") for _ in range(n))
        if kind == 2:
            return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") for _ in range(n))
        return "https://" + "/".join(words(rng, "abcdefghij-%_", 1, 12, n // 8)) + "?q=" + rng.choice(self.common)

    def spaces(self):
        rng = self.rng
        kinds = [" ", " ", " ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u0085", "\u2028", "\u180e", "\x0b", "\x0c", "\x1f",
                 "\u200b", "\ufeff", "\u202f"]
        return "".join(rng.choice(kinds) * rng.choice([1, 1, 2, 3, 4, 7, 16, 40]) + rng.choice(["", "", "x", "7", "(", "é"])
                       for _ in range(rng.randint(1, 20)))

    def numbers(self):
        rng = self.rng
        some = ["3.14159", "1,234,567", "0x1F", "٣٤٥", "१२३", "½", "Ⅷ", "²³", "①②", "1e-9", "2024-02-29", "𝟘𝟙", "９９"]
        return " ".join(str(rng.randrange(10**rng.randint(1, 18))) if rng.random() < .6 else rng.choice(some)
                        for _ in range(rng.randint(1, 40)))

    def control(self):
        return "".join(self.rng.choice(["\0", "\x01", "\x07", "\x1b[0m", "\x7f", "\u0080", "\u009f", "\ufffd", "\ufffe", "\U0010ffff",
                                        "\ue000", "\u200e", "\u202e", "ab", "<0x0A>", "▁", "▁▁", "Ġ", "Ċ", "Ã"])
                       for _ in range(self.rng.randint(1, 20)))

    def specials(self):
        some = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>user\n", "<|im_end|>", "<|im", "<|im_end", "  <mask>  ", "x<mask>y",
                "<tool>", "<tool><tool_call>", "<tool_call", "word", "swords", "word.", " word ", "_word", "wordé", "New\u0301 York", "new york",
                "ünï", "unı", "u\u0308nï", "<<s>>", "[INST]", "[/INST]"]
        return "".join(self.rng.choice(some) + self.rng.choice(["", "", " ", "  ", "\n", " text "]) for _ in range(self.rng.randint(1, 20)))

    def anything(self):
        def point():
            c = self.rng.randrange(0x110000) if self.rng.random() < .3 else self.rng.randrange(0x3000)
            return chr(c) if not 0xD800 <= c <= 0xDFFF else "a"
        return "".join(point() for _ in range(self.rng.randint(1, 100)))


def added_tokens():
    return [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True),
            AddedToken("<mask>", special=True, lstrip=True, rstrip=True, normalized=False),
            AddedToken("<tool>", special=False, normalized=False), AddedToken("<tool_call>", special=False, normalized=False),
            AddedToken("word", special=False, single_word=True, normalized=False),
            AddedToken("new york", special=False, normalized=True, rstrip=True),
            AddedToken("ünï", special=False, normalized=True, lstrip=True)]


def byte_level_trainer(**kw):
    return trainers.BpeTrainer(vocab_size=2000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                               special_tokens=["<|endoftext|>"], **kw)


def sentencepiece_trainer():
    return trainers.BpeTrainer(vocab_size=2000, show_progress=False, limit_alphabet=300,
                               special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)])


def spm_decoder():
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def build(kind):
    """A tokenizer to train, its trainer, and what to change after training."""
    byte_level = decoders.ByteLevel()
    after = lambda t: None
    if kind == "gpt2":
        t = Tokenizer(models.BPE())
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        t.decoder = byte_level
        return t, byte_level_trainer(), after
    if kind == "prefix_space":  # RoBERTa's way
        t = Tokenizer(models.BPE())
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        t.decoder = byte_level
        return t, byte_level_trainer(), after
    if kind in ("llama3", "qwen2", "o200k"):
        t = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
        if kind == "qwen2":
            t.normalizer = normalizers.NFC()
        pattern = {"llama3": LLAMA3, "qwen2": QWEN2, "o200k": O200K}[kind]
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        t.decoder = byte_level
        if kind == "llama3":
            after = lambda t: setattr(t, "post_processor", processors.TemplateProcessing(
                single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", t.token_to_id("<|endoftext|>"))]))
        return t, byte_level_trainer(), after
    if kind == "smollm":
        t = Tokenizer(models.BPE())
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False)])
        t.decoder = byte_level
        return t, byte_level_trainer(), after
    if kind == "splits":  # every behaviour, runs of digits, no byte missing from the vocabulary
        t = Tokenizer(models.BPE())
        split = pre_tokenizers.Split
        t.pre_tokenizer = pre_tokenizers.Sequence([
            split(Regex(r"\r?\n"), "merged_with_previous"), split("-", "merged_with_next"), split(Regex(r"[\p{P}\p{S}]"), "contiguous"),
            split("\x00", "removed"), split(Regex(r"[^\s\d]+"), "isolated", invert=True), pre_tokenizers.Digits(),
            split(Regex(r"(?=[A-Z])"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        t.decoder = byte_level
        return t, byte_level_trainer(), after
    if kind in ("llama2", "llama2_lines"):
        t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
        if kind == "llama2":  # as SentencePiece trains: no merge across words
            t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        else:  # merges across words: nothing cuts the text but what the merges allow
            t.normalizer = normalizers.Replace(" ", "▁")

        def after(t):
            t.pre_tokenizer = None
            t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            t.decoder = spm_decoder()
        return t, sentencepiece_trainer(), after
    if kind.startswith("mistral"):  # mistral, mistral_first, mistral_never, mistral_whole
        scheme = {"mistral": "always", "mistral_first": "first", "mistral_never": "never", "mistral_whole": "first"}[kind]
        t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)

        def after(t):
            if kind == "mistral_whole":
                t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            t.decoder = decoders.Metaspace(prepend_scheme=scheme) if kind == "mistral" else spm_decoder()
        return t, sentencepiece_trainer(), after
    if kind in ("unk", "unk_fused", "dropped"):  # characters without bytes to fall back on
        t = Tokenizer(models.BPE(fuse_unk=kind == "unk_fused", **({} if kind == "dropped" else {"unk_token": "<unk>"})))
        t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")

        def after(t):
            t.pre_tokenizer = None
            t.normalizer = normalizers.Replace(" ", "▁")
            t.decoder = None
        return t, trainers.BpeTrainer(vocab_size=1500, show_progress=False, limit_alphabet=120, special_tokens=["<unk>"]), after
    raise SystemExit(f"unknown kind {kind}")


def train(kind):
    text = HardText(1)
    tokenizer, trainer, after = build(kind)
    tokenizer.train_from_iterator((text.document() for _ in range(200)), trainer)
    after(tokenizer)
    tokenizer.add_tokens(added_tokens())
    return tokenizer


def documents(megabytes):
    text, size = HardText(2), 0
    while size < megabytes * 1e6:
        document = text.document()
        size += len(document.encode())
        yield document


def changed_segments(text, normalize):
    """For every character, the segment [begin, end) that NFC changes as a whole, or the character alone."""
    bounds = list(range(len(text) + 1))
    spans = [(i, i + 1) for i in range(len(text))]
    def follows(c):
        return unicodedata.combining(c) or unicodedata.category(c)[0] == "M" or 0x1160 <= ord(c) <= 0x11FF
    i = 0
    while i < len(text):
        j = i + 1
        while j < len(text) and follows(text[j]):
            j += 1
        if normalize and unicodedata.normalize("NFC", text[i:j]) != text[i:j]:
            spans[i:j] = [(i, j)] * (j - i)
        i = j
    return spans


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    if sys.argv[2] == "--given":
        tokenizer = Tokenizer.from_file(sys.argv[3] + "/tokenizer.json")
        texts = [part for name in sys.argv[4:] for part in Path(name).read_text("utf-8").split("\n\n") if part]
        normal = False
    else:
        tokenizer = train(sys.argv[2])
        texts = list(documents(float(sys.argv[3])))
        normal = sys.argv[2] == "qwen2"
    texts.append("".join(texts[:200]))  # and a long one
    tokenizer.save(str(out / "tokenizer.json"))
    with open(out / "text.bin", "wb") as text_file, open(out / "ids.bin", "wb") as id_file, open(out / "spans.bin", "wb") as span_file, \
            open(out / "decoded.bin", "wb") as decoded_file, open(out / "decoded_skip.bin", "wb") as skip_file:
        def put(file, text):
            data = text.encode()
            file.write(struct.pack("<I", len(data)) + data)
        for number, text in enumerate(texts):
            encoding = tokenizer.encode(text, add_special_tokens=False)
            put(text_file, text)
            id_file.write(struct.pack(f"<I{len(encoding.ids)}I", len(encoding.ids), *encoding.ids))
            put(decoded_file, tokenizer.decode(encoding.ids, skip_special_tokens=False))
            put(skip_file, tokenizer.decode(encoding.ids, skip_special_tokens=True))
            if number < SPAN_DOCUMENTS:
                starts = [0]
                for c in text:
                    starts.append(starts[-1] + len(c.encode()))
                segments = changed_segments(text, normal)
                span_file.write(struct.pack("<I", len(encoding.ids)))
                for begin, end in encoding.offsets:
                    if begin < end:
                        begin, end = segments[begin][0], segments[end - 1][1]
                    span_file.write(struct.pack("<II", starts[begin], starts[end]))


main()
