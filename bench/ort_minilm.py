#!/usr/bin/env python3
"""Purpose: measure a BERT sentence encoder in onnxruntime, from the same safetensors weights.

Usage:
  ort_minilm.py build MODEL_DIR CACHE_DIR                    writes the ONNX graphs, prints one JSON line per graph
  ort_minilm.py check GRAPH GOLDEN.safetensors               prints {"cosine": lowest cosine with the reference, "version"}
  ort_minilm.py compare GOLDEN.safetensors                   the same for {"embedding": [...]} lines on standard input
  ort_minilm.py serve GRAPH                                  reads lines "THREADS BATCH SEQ REPEATS", answers each with
                                                             {"ms": [...]}; an empty line or end of input ends it

Three graphs are built, and the fastest one stands for onnxruntime:
  plain   the standard operators, as an exporter writes them; onnxruntime optimises at load (ORT_ENABLE_ALL)
  fused   `plain` through onnxruntime.transformers' BERT optimiser (left out where that does not run)
  packed  onnxruntime's own Attention, SkipLayerNormalization and BiasGelu operators, written directly

Not here: orchestration and tables, which are the Rust part's (src/).
"""

import json
import os
import sys
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

ort.set_default_logger_severity(3)


class Graph:
    """Appends nodes and initialisers under fresh names."""

    def __init__(self):
        self.nodes, self.weights = [], {}

    def op(self, kind, inputs, outputs=1, domain="", **attributes):
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0] + "_node", domain=domain, **attributes))
        return names[0]

    def constant(self, name, array):
        self.weights.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def ints(self, *values):
        return self.constant("i64_" + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value):
        return self.constant(f"f32_{value}", np.float32(value))


def encoder(config, tensors, packed):
    """ids, mask: i64[B, S] → embedding: f32[B, D]. Mean over the mask, then L2 norm."""
    g = Graph()
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in tensors else ""
    weight = lambda name: tensors[prefix + name]
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size, eps = hidden // heads, config["layer_norm_eps"]
    assert config["hidden_act"] == "gelu", "only the erf GELU is written here"

    def norm(x, name):
        scale, bias = g.constant(name + ".weight", weight(name + ".weight")), g.constant(name + ".bias", weight(name + ".bias"))
        return g.op("LayerNormalization", [x, scale, bias], axis=-1, epsilon=eps)

    def skip_norm(x, residual, name):
        if not packed:
            return norm(g.op("Add", [x, residual]), name)
        scale, bias = g.constant(name + ".weight", weight(name + ".weight")), g.constant(name + ".bias", weight(name + ".bias"))
        return g.op("SkipLayerNormalization", [x, residual, scale, bias], domain="com.microsoft", epsilon=eps)

    def matmul(x, name):
        return g.op("MatMul", [x, g.constant(name + ".weight_t", weight(name + ".weight").T)])

    def linear(x, name):
        return g.op("Add", [matmul(x, name), g.constant(name + ".bias", weight(name + ".bias"))])

    words = g.op("Gather", [g.constant("words", weight("embeddings.word_embeddings.weight")), "input_ids"])  # [B, S, D]
    length = g.op("Gather", [g.op("Shape", ["input_ids"]), g.ints(1)])
    places = g.op("Slice", [g.constant("positions", weight("embeddings.position_embeddings.weight")), g.ints(0), length, g.ints(0)])
    kind = g.constant("kind", weight("embeddings.token_type_embeddings.weight")[0])
    x = norm(g.op("Add", [g.op("Add", [words, kind]), places]), "embeddings.LayerNorm")

    if packed:
        keep = g.op("Cast", ["attention_mask"], to=TensorProto.INT32)
    else:
        wide = g.op("Unsqueeze", [g.op("Unsqueeze", ["attention_mask", g.ints(1)]), g.ints(2)])  # [B, 1, 1, S]
        hide = g.op("Sub", [g.scalar(1.0), g.op("Cast", [wide], to=TensorProto.FLOAT)])
        hide = g.op("Mul", [hide, g.scalar(-10000.0)])

    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        parts = [at + "attention.self." + p for p in ("query", "key", "value")]
        if packed:
            qkv = g.constant(at + "qkv", np.concatenate([weight(p + ".weight").T for p in parts], axis=1))
            bias = g.constant(at + "qkv_bias", np.concatenate([weight(p + ".bias") for p in parts]))
            mixed = g.op("Attention", [x, qkv, bias, keep], domain="com.microsoft", num_heads=heads)
        else:
            q, k, v = (
                g.op("Transpose", [g.op("Reshape", [linear(x, p), g.ints(0, 0, heads, size)])], perm=perm)
                for p, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
            )
            scores = g.op("Div", [g.op("MatMul", [q, k]), g.scalar(float(size) ** 0.5)])  # [B, H, S, S]
            probs = g.op("Softmax", [g.op("Add", [scores, hide])], axis=-1)
            mixed = g.op("Transpose", [g.op("MatMul", [probs, v])], perm=[0, 2, 1, 3])
            mixed = g.op("Reshape", [mixed, g.ints(0, 0, hidden)])
        x = skip_norm(linear(mixed, at + "attention.output.dense"), x, at + "attention.output.LayerNorm")
        if packed:
            up = matmul(x, at + "intermediate.dense")
            up = g.op("BiasGelu", [up, g.constant(at + "up_bias", weight(at + "intermediate.dense.bias"))], domain="com.microsoft")
        else:
            up = linear(x, at + "intermediate.dense")
            erf = g.op("Erf", [g.op("Div", [up, g.scalar(2.0**0.5)])])
            up = g.op("Mul", [g.op("Mul", [up, g.op("Add", [erf, g.scalar(1.0)])]), g.scalar(0.5)])
        x = skip_norm(linear(up, at + "output.dense"), x, at + "output.LayerNorm")

    shown = g.op("Unsqueeze", [g.op("Cast", ["attention_mask"], to=TensorProto.FLOAT), g.ints(2)])  # [B, S, 1]
    total = g.op("ReduceSum", [g.op("Mul", [x, shown]), g.ints(1)], keepdims=0)
    mean = g.op("Div", [total, g.op("ReduceSum", [shown, g.ints(1)], keepdims=0)])
    g.nodes.append(helper.make_node("LpNormalization", [mean], ["embedding"], axis=-1, p=2))

    io = lambda name, kind, shape: helper.make_tensor_value_info(name, kind, shape)
    graph = helper.make_graph(
        g.nodes, "encoder",
        [io("input_ids", TensorProto.INT64, ["B", "S"]), io("attention_mask", TensorProto.INT64, ["B", "S"])],
        [io("embedding", TensorProto.FLOAT, ["B", hidden])], list(g.weights.values()),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def build(model_dir, cache_dir):
    with open(os.path.join(model_dir, "config.json")) as f:
        config = json.load(f)
    tensors = load_file(os.path.join(model_dir, "model.safetensors"))
    os.makedirs(cache_dir, exist_ok=True)
    path = lambda name: os.path.join(cache_dir, f"{name}.onnx")
    for name, packed in (("plain", False), ("packed", True)):
        onnx.save(encoder(config, tensors, packed), path(name))
        print(json.dumps({"graph": name, "path": path(name)}), flush=True)
    try:
        from onnxruntime.transformers import optimizer
        fused = optimizer.optimize_model(
            path("plain"), model_type="bert", num_heads=config["num_attention_heads"], hidden_size=config["hidden_size"], opt_level=0)
        fused.save_model_to_file(path("fused"))
        statistics = fused.get_fused_operator_statistics()
        print(json.dumps({"graph": "fused", "path": path("fused"), "operators": {k: v for k, v in statistics.items() if v}}), flush=True)
    except Exception as e:  # it is an extra: some releases import torch
        print(f"ort_minilm: no `fused` graph: {type(e).__name__}: {e}", file=sys.stderr)


def session(graph, threads):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def check(graph, golden):
    reference = load_file(golden)
    feed = {k: reference[k].astype(np.int64) for k in ("input_ids", "attention_mask")}
    cosine = lowest_cosine(session(graph, 1).run(None, feed)[0], reference["sentence_embedding"])
    print(json.dumps({"cosine": cosine, "version": ort.__version__}))


def compare(golden):
    found = np.array([json.loads(line)["embedding"] for line in sys.stdin], np.float32)
    print(json.dumps({"cosine": lowest_cosine(found, load_file(golden)["sentence_embedding"])}))


def lowest_cosine(found, wanted):
    if found.shape != wanted.shape:
        sys.exit(f"ort_minilm: embeddings of shape {found.shape}, the reference has {wanted.shape}")
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(axis=1) / norms).min())


def serve(graph):
    sessions = {}
    for line in sys.stdin:
        if not line.strip():
            break
        threads, batch, seq, repeats = map(int, line.split())
        # One session at a time: an idle session's spinning threads would disturb its neighbour.
        if threads not in sessions:
            sessions.clear()
            sessions[threads] = session(graph, threads)
        ids = np.random.default_rng(1).integers(1000, 20000, (batch, seq), dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        sessions[threads].run(None, feed)
        ms = []
        for _ in range(repeats):
            start = time.perf_counter()
            sessions[threads].run(None, feed)
            ms.append((time.perf_counter() - start) * 1e3)
        print(json.dumps({"ms": ms}), flush=True)


if __name__ == "__main__":
    commands = {"build": (build, 2), "check": (check, 2), "compare": (compare, 1), "serve": (serve, 1)}
    command, count = commands.get(sys.argv[1] if len(sys.argv) > 1 else "", (None, 0))
    if command is None or len(sys.argv) != 2 + count:
        sys.exit(__doc__)
    command(*sys.argv[2:])
