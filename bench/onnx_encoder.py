#!/usr/bin/env python3
"""Purpose: measure a BERT or MPNet sentence encoder in onnxruntime and OpenVINO, from the same safetensors weights.

Usage:
  onnx_encoder.py build MODEL_DIR CACHE_DIR            writes the ONNX graphs, prints one JSON line for each engine and graph:
                                                       {"engine", "graph", "precision", "path"}
  onnx_encoder.py check ENGINE GRAPH GOLDEN.safetensors    prints {"cosine": lowest cosine with the reference, "version"}
  onnx_encoder.py compare GOLDEN.safetensors           the same for {"embedding": [...]} lines on standard input
  onnx_encoder.py serve ENGINE GRAPH                   reads lines "THREADS REPEATS LENGTH...", one length for each sentence of
                                                       the batch, answers each with {"ms": [...]}; an empty line or end of
                                                       input ends it

The graphs; of each precision the fastest one stands for the peers:
  plain   the standard operators, as an exporter writes them; onnxruntime optimises at load (ORT_ENABLE_ALL)
  fused   `plain` through onnxruntime.transformers' BERT optimiser (left out where that does not run)
  packed  onnxruntime's own Attention, SkipLayerNormalization and BiasGelu operators, written directly
  plain_int8, packed_int8    these with dynamically quantised matrices (onnxruntime.quantization.quantize_dynamic)

Not here: orchestration and tables, which are the Rust part's (src/).
"""

import json
import os
import sys
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


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
    mpnet = config["model_type"] == "mpnet"
    prefix = next((p for p in ("bert.", "mpnet.") if p + "embeddings.word_embeddings.weight" in tensors), "")
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
    positions = weight("embeddings.position_embeddings.weight")
    # Batches are padded on the right, so that MPNet's positions begin at 2.
    places = g.op("Slice", [g.constant("positions", positions[2:] if mpnet else positions), g.ints(0), length, g.ints(0)])
    if not mpnet:
        words = g.op("Add", [words, g.constant("kind", weight("embeddings.token_type_embeddings.weight")[0])])
    x = norm(g.op("Add", [words, places]), "embeddings.LayerNorm")
    if mpnet:
        bias = relative_bias(weight("encoder.relative_attention_bias.weight"), min(len(positions) - 2, 512))  # [1, H, L, L]
        both = g.op("Concat", [length, length], axis=0)
        bias = g.op("Slice", [g.constant("relative_bias", bias), g.ints(0, 0), both, g.ints(2, 3)])

    if packed:
        keep = g.op("Cast", ["attention_mask"], to=TensorProto.INT32)
    else:
        wide = g.op("Unsqueeze", [g.op("Unsqueeze", ["attention_mask", g.ints(1)]), g.ints(2)])  # [B, 1, 1, S]
        hide = g.op("Sub", [g.scalar(1.0), g.op("Cast", [wide], to=TensorProto.FLOAT)])
        hide = g.op("Mul", [hide, g.scalar(-10000.0)])

    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        parts = [at + "attention." + p for p in (("attn.q", "attn.k", "attn.v") if mpnet else ("self.query", "self.key", "self.value"))]
        if packed:
            qkv = g.constant(at + "qkv", np.concatenate([weight(p + ".weight").T for p in parts], axis=1))
            qkv_bias = g.constant(at + "qkv_bias", np.concatenate([weight(p + ".bias") for p in parts]))
            inputs = [x, qkv, qkv_bias, keep] + (["", bias] if mpnet else [])
            mixed = g.op("Attention", inputs, domain="com.microsoft", num_heads=heads)
        else:
            q, k, v = (
                g.op("Transpose", [g.op("Reshape", [linear(x, p), g.ints(0, 0, heads, size)])], perm=perm)
                for p, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
            )
            scores = g.op("Div", [g.op("MatMul", [q, k]), g.scalar(float(size) ** 0.5)])  # [B, H, S, S]
            if mpnet:
                scores = g.op("Add", [scores, bias])
            probs = g.op("Softmax", [g.op("Add", [scores, hide])], axis=-1)
            mixed = g.op("Transpose", [g.op("MatMul", [probs, v])], perm=[0, 2, 1, 3])
            mixed = g.op("Reshape", [mixed, g.ints(0, 0, hidden)])
        out, behind = ("attention.attn.o", "attention.LayerNorm") if mpnet else ("attention.output.dense", "attention.output.LayerNorm")
        x = skip_norm(linear(mixed, at + out), x, at + behind)
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


def relative_bias(table, length):
    """MPNet's and T5's buckets: 16 of each sign, half of them exact, the rest logarithmic up to a distance of 128."""
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]  # key - query
    far = np.abs(distance)
    large = 8 + (np.log(np.maximum(far, 1) / 8) / np.log(128 / 8) * 8).astype(np.int64)
    bucket = np.where(distance > 0, 16, 0) + np.where(far < 8, far, np.minimum(large, 15))
    return np.ascontiguousarray(table[bucket].transpose(2, 0, 1)[None])


def build(model_dir, cache_dir):
    with open(os.path.join(model_dir, "config.json")) as f:
        config = json.load(f)
    tensors = load_file(os.path.join(model_dir, "model.safetensors"))
    os.makedirs(cache_dir, exist_ok=True)
    path = lambda name: os.path.join(cache_dir, f"{name}.onnx")

    def tell(engine, name, precision="f32"):
        print(json.dumps({"engine": engine, "graph": name, "precision": precision, "path": path(name)}), flush=True)

    for name, packed in (("plain", False), ("packed", True)):
        onnx.save(encoder(config, tensors, packed), path(name))
        tell("onnxruntime", name)
    if config["model_type"] == "bert":
        try:
            from onnxruntime.transformers import optimizer
            fused = optimizer.optimize_model(
                path("plain"), model_type="bert", num_heads=config["num_attention_heads"], hidden_size=config["hidden_size"], opt_level=0)
            fused.save_model_to_file(path("fused"))
            tell("onnxruntime", "fused")
        except Exception as e:  # it is an extra: some releases import torch
            print(f"onnx_encoder: no `fused` graph: {type(e).__name__}: {e}", file=sys.stderr)
    from onnxruntime.quantization import QuantType, quantize_dynamic
    for name in ("plain", "packed"):
        # A scale for each channel, of 7 bits: without VNNI sums of two products saturate. Operators of onnxruntime's own have
        # no inferred type.
        options = {"DefaultTensorType": TensorProto.FLOAT}
        quantize_dynamic(path(name), path(name + "_int8"), per_channel=True, reduce_range=True, weight_type=QuantType.QInt8,
                         extra_options=options)
        tell("onnxruntime", name + "_int8", "int8")
    for name, precision in (("plain", "f32"), ("plain_int8", "int8")):
        try:
            Vino(path(name), 1)
            tell("openvino", name, precision)
        except Exception as e:  # not every release takes every graph
            print(f"onnx_encoder: OpenVINO does not take `{name}`: {type(e).__name__}: {str(e)[:200]}", file=sys.stderr)


class Ort:
    def __init__(self, graph, threads):
        import onnxruntime as ort
        ort.set_default_logger_severity(3)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.version = ort.__version__
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(self, feed):
        return self.session.run(None, feed)[0]


class Vino:
    def __init__(self, graph, threads):
        import openvino
        core = openvino.Core()
        # By default it computes in bf16 where the processor can.
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self.version = openvino.__version__.split("-")[0]
        self.request = core.compile_model(core.read_model(graph), "CPU", options).create_infer_request()

    def run(self, feed):
        return self.request.infer(feed)[0]


ENGINES = {"onnxruntime": Ort, "openvino": Vino}


def check(engine, graph, golden):
    reference = load_file(golden)
    feed = {k: reference[k].astype(np.int64) for k in ("input_ids", "attention_mask")}
    engine = ENGINES[engine](graph, 1)
    cosine = lowest_cosine(engine.run(feed), reference["sentence_embedding"])
    print(json.dumps({"cosine": cosine, "version": engine.version}))


def compare(golden):
    found = np.array([json.loads(line)["embedding"] for line in sys.stdin], np.float32)
    print(json.dumps({"cosine": lowest_cosine(found, load_file(golden)["sentence_embedding"])}))


def lowest_cosine(found, wanted):
    if found.shape != wanted.shape:
        sys.exit(f"onnx_encoder: embeddings of shape {found.shape}, the reference has {wanted.shape}")
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(axis=1) / norms).min())


def serve(engine, graph):
    sessions = {}
    for line in sys.stdin:
        if not line.strip():
            break
        threads, repeats, *lengths = map(int, line.split())
        # One session at a time: an idle session's spinning threads would disturb its neighbour.
        if threads not in sessions:
            sessions.clear()
            sessions[threads] = ENGINES[engine](graph, threads)
        shape = (len(lengths), max(lengths))
        mask = (np.arange(shape[1])[None, :] < np.array(lengths)[:, None]).astype(np.int64)
        ids = np.random.default_rng(1).integers(1000, 20000, shape, dtype=np.int64) * mask
        feed = {"input_ids": ids, "attention_mask": mask}
        sessions[threads].run(feed)
        ms = []
        for _ in range(repeats):
            start = time.perf_counter()
            sessions[threads].run(feed)
            ms.append((time.perf_counter() - start) * 1e3)
        print(json.dumps({"ms": ms}), flush=True)


if __name__ == "__main__":
    commands = {"build": (build, 2), "check": (check, 3), "compare": (compare, 1), "serve": (serve, 2)}
    command, count = commands.get(sys.argv[1] if len(sys.argv) > 1 else "", (None, 0))
    if command is None or len(sys.argv) != 2 + count:
        sys.exit(__doc__)
    command(*sys.argv[2:])
