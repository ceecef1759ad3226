#!/usr/bin/env python3
"""Makes golden decoders that ../golden has no case of: tiny random models, and what transformers computes with them.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python decoders.py [CASE…]

A case is laid out as those of `tests/golden` are: `config.json`, `model.safetensors`,
`golden.safetensors` (`in.*`, `out.*`) and `case.json`. Logits and hidden states keep the last five
positions. Seeds are tried until the greedy choices have margins that no rounding overturns.
"""

import copy
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

MODELS = Path(__file__).parent / "models"
KEPT = 5
NEW = 24
MARGIN = 0.01


def bloom(heads):
    return transformers.BloomForCausalLM, transformers.BloomConfig(
        vocab_size=90, hidden_size=36, n_layer=2, n_head=heads, seq_length=128)


def stablelm(**options):
    return transformers.StableLmForCausalLM, transformers.StableLmConfig(
        vocab_size=90, hidden_size=48, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=3, num_key_value_heads=1, max_position_embeddings=128, **options)


def llama_dynamic():
    return transformers.LlamaForCausalLM, transformers.LlamaConfig(
        vocab_size=90, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=48,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})


SPARSE = {"attention_layers": ["dense", "banded", "strided", "fixed", "strided"], "window_size": 7,
          "attention_stride": 3, "attention_block": 2, "attention_span": 8, "attention_summary": 2}


def sees(kind, i, j):
    """The patterns of Child et al. (arXiv:1904.10509) between positions, as `gpt3.rs` tells them."""
    stride, block = SPARSE["attention_stride"], SPARSE["attention_block"]
    span, summary = SPARSE["attention_span"], SPARSE["attention_summary"]
    near = {
        "dense": True,
        "banded": i - j < SPARSE["window_size"],
        "strided": i - j < stride * block or (i // block - j // block) % stride == 0,
        "fixed": i // span == j // span or j % span >= span - summary,
    }[kind]
    return j <= i and near


def gpt3():
    """GPT-2 of transformers, with a mask of its own for each layer."""
    model = transformers.GPT2LMHeadModel
    config = transformers.GPT2Config(vocab_size=90, n_embd=24, n_head=3, n_layer=5, n_positions=96, bos_token_id=1, eos_token_id=2,
                                     attn_implementation="eager")
    return model, config


def sparsify(model):
    for kind, block in zip(SPARSE["attention_layers"], model.transformer.h):
        inner = block.attn.forward

        def forward(hidden_states, *args, inner=inner, kind=kind, **kwargs):
            mask = kwargs["attention_mask"].clone()
            rows, _, length, _ = mask.shape
            for row in range(rows):
                # The first real token of a left-padded row sees itself first.
                start = next(i for i in range(length) if mask[row, 0, i, i] == 0)
                for i in range(start, length):
                    for j in range(start, length):
                        if not sees(kind, i - start, j - start):
                            mask[row, 0, i, j] = torch.finfo(mask.dtype).min
            kwargs["attention_mask"] = mask
            return inner(hidden_states, *args, **kwargs)

        block.attn.forward = forward


CASES = {
    # name: (model and config, changes of config.json, whether it generates with a cache)
    "bloom_heads6": (lambda: bloom(6), {}, True),
    "bloom_heads4": (lambda: bloom(4), {}, True),
    "gpt3_sparse": (gpt3, {"architectures": ["GPT3LMHeadModel"], "model_type": "gpt3"} | SPARSE, False),
    "dynamic_rope_llama": (llama_dynamic, {}, True),
    "stablelm_bias": (lambda: stablelm(use_qkv_bias=True), {}, True),
    "stablelm_parallel": (lambda: stablelm(use_parallel_residual=True), {}, True),
}


def build(name, seed):
    (cls, config), _, _ = CASES[name][0](), None, None
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.25 if parameter.dim() > 1 else 0.1
            offset = 1.0 if parameter.dim() == 1 and parameter.std() == 0 and parameter.mean() == 1 else 0.0
            parameter.copy_(offset + spread * torch.randn_like(parameter))
    if name == "gpt3_sparse":
        sparsify(model)
    return model


def greedy(model, ids, mask, new, cached, eos=None, pad=0):
    """The new tokens of each row, and the least distance between the first and the second choice."""
    model = copy.deepcopy(model) if cached else model
    rows, margin = ids.shape[0], float("inf")
    done, out, cache = [False] * rows, [[] for _ in range(rows)], None
    for _ in range(new):
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        options = dict(attention_mask=mask)
        if "BLOOM" not in type(model).__name__.upper():
            options["position_ids"] = position
        inputs = ids
        if cached:
            options |= dict(use_cache=True)
            if cache is not None:
                inputs, options["past_key_values"] = ids[:, -1:], cache
                if "position_ids" in options:
                    options["position_ids"] = position[:, -1:]
        else:
            options["use_cache"] = False
        result = model(inputs, **options)
        cache = getattr(result, "past_key_values", None) or getattr(result, "cache", None)
        assert not cached or cache is not None
        top = result.logits[:, -1].topk(2).values
        best = result.logits[:, -1].argmax(-1)
        for row in range(rows):
            if not done[row]:
                margin = min(margin, float(top[row, 0] - top[row, 1]))
            out[row].append(pad if done[row] else int(best[row]))
            done[row] = done[row] or int(best[row]) == eos
        ids = torch.cat([ids, best[:, None]], -1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], -1)
        if all(done):
            break
    return torch.tensor(out), margin


@torch.no_grad()
def make(name, seed):
    model = build(name, seed)
    fresh = lambda: build(name, seed)
    cached = CASES[name][2]
    dynamic = "dynamic" in name
    vocab = model.config.vocab_size
    generator = torch.Generator().manual_seed(seed)
    prompt = lambda n: torch.randint(3, vocab, (1, n), generator=generator)
    tensors, margins = {}, []

    def scenario(key, ids, mask=None, hidden=True, generates=True):
        tensors[f"in.{key}.input_ids"] = ids
        if mask is not None:
            tensors[f"in.{key}.attention_mask"] = mask
        mask = torch.ones_like(ids) if mask is None else mask
        options = dict(attention_mask=mask, use_cache=False, output_hidden_states=True)
        if "bloom" not in name:
            options["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        # Dynamic ropes remember the longest sequence that they have seen.
        result = fresh()(ids, **options)
        kept = mask[:, -KEPT:, None]
        tensors[f"out.{key}.logits"] = result.logits[:, -KEPT:] * kept
        if hidden:
            for i, h in enumerate(result.hidden_states):
                tensors[f"out.{key}.hidden_states.{i}"] = h[:, -KEPT:] * kept
            tensors[f"out.{key}.last_hidden_state"] = result.hidden_states[-1][:, -KEPT:] * kept
        if generates:
            out, margin = greedy(fresh(), ids, mask, NEW, cached)
            tensors[f"out.{key}.generated_ids"] = out
            margins.append(margin)
            return out

    if dynamic:
        # Past the original context of 48, across it, and below it.
        scenario("single", prompt(62))
        scenario("cross", prompt(40), hidden=False)
        scenario("short", prompt(18), hidden=False)
    else:
        scenario("single", prompt(37))
    short, long = prompt(21), prompt(33)
    ids = torch.cat([torch.cat([torch.zeros(1, 12, dtype=torch.int64), short], -1), long])
    mask = torch.ones_like(ids)
    mask[0, :12] = 0
    # transformers goes by the longest row of a batch, the compiled model by each row.
    out = scenario("batch", ids, mask, generates=not dynamic)
    tensors["in.pad_token_id"] = torch.tensor(0)
    if out is not None:
        eos = int(out[0, 4])
        tensors["in.eos_test.eos_token_id"] = torch.tensor(eos)
        tensors["out.eos_test.generated_ids"], margin = greedy(fresh(), ids, mask, NEW, cached, eos=eos)
        margins.append(margin)
    return model, tensors, min(margins)


def main():
    for name in sys.argv[1:] or CASES:
        for seed in range(200):
            model, tensors, margin = make(name, seed)
            varied = len(set(tensors["out.single.generated_ids"].flatten().tolist())) > 6
            if margin > MARGIN and varied:
                break
        else:
            sys.exit(f"{name}: no seed gives margins of {MARGIN}")
        folder = MODELS / name
        folder.mkdir(exist_ok=True)
        if name == "gpt3_sparse":
            for block in model.transformer.h:
                del block.attn.forward
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        config = json.loads((folder / "config.json").read_text())
        config |= CASES[name][1] | {"pad_token_id": 0}
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "golden.safetensors")
        info = {
            "case": name, "seed": seed, "min_generated_margin": margin,
            "tolerance": {"float_outputs": {"atol": 2e-4, "rtol": 1e-3}},
            "logits_kept": f"LAST min({KEPT}, len) positions",
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        (folder / "case.json").write_text(json.dumps(info, indent=1) + "\n")
        print(name, "seed", seed, "margin", margin, "ids", tensors["out.single.generated_ids"].tolist()[0])


main()
