#!/usr/bin/env python3
"""Purpose: measure a GGUF decoder in llama.cpp, through llama-cpp-python's low-level API.

Usage: llama_decoder.py MODEL.gguf CONTEXT UBATCH
  Prints one JSON line about the build and the model, then reads lines "THREADS FLASH PROMPT NEW" and answers each with
  {"read_s", "write_s"}: the seconds of PROMPT tokens into an empty cache in one batch, and of NEW tokens one by one
  behind them. FLASH is 0 or 1. Logits are computed for the last token of a batch; nothing is sampled. A shorter run,
  not timed, precedes each. An empty line or end of input ends it.

  The first line holds what a token costs in weights, as `info --json` of a compiled model does: "step_bytes" that a
  step of one token reads, "token_parameters" that each token is multiplied with, "row_parameters" of the head.

Weights are mapped, all other parameters are llama.cpp's defaults. Not here: orchestration and tables (src/).
"""

import ctypes
import json
import os
import sys
import time

import llama_cpp as llama

# Tables: a token reads one row of them. The first is also the head where there is no `output.weight`.
TABLES = ("token_embd.weight", "position_embd.weight", "token_types.weight")


class GgufInit(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.POINTER(ctypes.c_void_p))]


def traffic(path):
    """Bytes and parameters of a token, out of the GGUF's list of tensors."""
    library = ctypes.CDLL(os.path.join(os.path.dirname(llama.__file__), "lib", "libggml-base.so"))

    def function(name, result, *arguments):
        f = getattr(library, name)
        f.restype, f.argtypes = result, arguments
        return f

    pointer = ctypes.c_void_p
    first = function("ggml_get_first_tensor", pointer, pointer)
    following = function("ggml_get_next_tensor", pointer, pointer, pointer)
    name_of = function("ggml_get_name", ctypes.c_char_p, pointer)
    bytes_of = function("ggml_nbytes", ctypes.c_size_t, pointer)
    elements_of = function("ggml_nelements", ctypes.c_int64, pointer)
    rank_of = function("ggml_n_dims", ctypes.c_int, pointer)
    open_file = function("gguf_init_from_file", pointer, ctypes.c_char_p, GgufInit)
    close_file, free = function("gguf_free", None, pointer), function("ggml_free", None, pointer)

    context = pointer()
    file = open_file(path.encode(), GgufInit(True, ctypes.pointer(context)))
    if not file:
        sys.exit(f"llama_decoder: {path} is no GGUF that llama.cpp reads")
    tensors, tensor = {}, first(context)
    while tensor:
        tensors[name_of(tensor).decode()] = bytes_of(tensor), elements_of(tensor), rank_of(tensor)
        tensor = following(context, tensor)
    free(context)
    close_file(file)

    head = "output.weight" if "output.weight" in tensors else TABLES[0]
    read = {name: t for name, t in tensors.items() if name == head or name not in TABLES}
    return {
        "step_bytes": sum(size for size, _, _ in read.values()),
        "token_parameters": sum(count for name, (_, count, rank) in read.items() if rank == 2 and name != head),
        "row_parameters": tensors[head][1],
    }


class Model:
    def __init__(self, path, context, ubatch):
        self.context_size, self.ubatch = context, ubatch
        self.model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama_decoder: llama.cpp does not load {path}")
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.context, self.flash = None, None

    def prepare(self, threads, flash):
        """One context at a time: two would compete for the caches."""
        if self.flash != flash:
            if self.context:
                llama.llama_free(self.context)
            wanted = llama.llama_context_default_params()
            wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = self.context_size, self.ubatch, self.ubatch
            wanted.n_threads = wanted.n_threads_batch = threads
            wanted.flash_attn_type, wanted.no_perf = flash, True
            self.context, self.flash = llama.llama_init_from_model(self.model, wanted), flash
            if not self.context:
                sys.exit("llama_decoder: llama.cpp makes no context")
        llama.llama_set_n_threads(self.context, threads, threads)

    def run(self, prompt, new):
        """Seconds of reading and of writing."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        ids = [(i * 7919 + 13) % self.vocabulary for i in range(prompt + new)]
        steps = [(llama.llama_token * 1)(i) for i in ids[prompt:]]
        start = time.perf_counter()
        if prompt:
            self.step((llama.llama_token * prompt)(*ids[:prompt]))
        read = time.perf_counter()
        for step in steps:
            self.step(step)
        return read - start, time.perf_counter() - read

    def step(self, tokens):
        if status := llama.llama_decode(self.context, llama.llama_batch_get_one(tokens, len(tokens))):
            sys.exit(f"llama_decoder: llama_decode returned {status}")
        llama.llama_synchronize(self.context)


@llama.llama_log_callback
def complain(level, text, _):
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        sys.stderr.buffer.write(text)


def main(path, context, ubatch):
    llama.llama_log_set(complain, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = Model(path, int(context), int(ubatch))
    about = {"version": llama.__version__, "system": llama.llama_print_system_info().decode().strip(" |")}
    print(json.dumps(about | {"traffic": traffic(path)}), flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        threads, flash, prompt, new = map(int, line.split())
        model.prepare(threads, flash)
        model.run(min(prompt, 64), min(new, 8))
        read, write = model.run(prompt, new)
        print(json.dumps({"read_s": read, "write_s": write}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
