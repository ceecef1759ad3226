#!/usr/bin/env python3
"""Makes the golden encoders in `models`: heads and tasks of encoders that ../golden has no case of.

Usage: python3 encoders.py        (torch and transformers; versions are written into each case.json)

A case is laid out as those of ../golden/models, plus `tasks.json`: for each call of a task the arguments, the
texts, and the JSON lines that Hugging Face's pipelines give for them. Where a pipeline says nothing (spans of
answers, cross-encoders) the documented computation is repeated here on the model's own logits.
"""

import json
import pathlib
import shutil

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from transformers import pipeline

HERE = pathlib.Path(__file__).parent
TOKENIZERS = HERE.parent / "golden" / "tokenizers"

SINGLE = "The quick brown fox jumps over the lazy dog while the cat sleeps."
PAIR = ("Hello", "def add(a, b):\n    return a + b")
SECOND = "Once upon a time"
TEXTS = [SINGLE, SECOND, "a", "Wolfgang Müller lives in Berlin, near the Café — 東京 is far away."]
LONG = " ".join(TEXTS) + " " + " ".join(reversed(TEXTS))


def save(name, model, tokenizer, seed):
    """The model with weights that make its outputs differ, its tokenizer and what it computes."""
    folder = HERE / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in key.lower() and key.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            else:
                p.copy_(0.3 * noise)
    model.eval().save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZERS / tokenizer / file, folder / file)
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    tensors = {"in.pad_token_id": torch.tensor(loaded.pad_token_id)}
    types = getattr(model.config, "type_vocab_size", 0) > 1

    def run(scenario, texts):
        batch = loaded(texts, return_tensors="pt", padding=len(texts) > 1, return_token_type_ids=types)
        inputs = {k: v for k, v in batch.items() if k != "attention_mask" or len(texts) > 1}
        with torch.no_grad():
            out = model(**inputs, output_hidden_states=True)
        for k, v in inputs.items():
            tensors[f"in.{scenario}.{k}"] = v
        for k in ("logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output"):
            v = getattr(out, k, None)
            if v is not None:
                aligned = k not in ("pooler_output",) and v.shape[1:2] == inputs["input_ids"].shape[1:2]
                if aligned and "attention_mask" in inputs:
                    mask = inputs["attention_mask"]
                    v = v * mask.reshape(mask.shape + (1,) * (v.dim() - 2))
                tensors[f"out.{scenario}.{k}"] = v.contiguous()
        if len(texts) > 1:
            mask = inputs["attention_mask"].unsqueeze(-1)
            for i, h in enumerate(out.hidden_states):
                tensors[f"out.{scenario}.hidden_states.{i}"] = (h * mask).contiguous()

    run("single", [SINGLE])
    run("batch", [PAIR[0] + " " + PAIR[1], SECOND])
    save_file(tensors, folder / "golden.safetensors")
    case = {
        "case": name,
        "architecture": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tolerance": {"float_outputs": {"atol": 0.0002, "rtol": 0.001}},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                     "tokenizers": tokenizers.__version__},
    }
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    return folder, model, loaded


def tasks(folder, calls):
    text = json.dumps(calls, indent=1, ensure_ascii=False)
    (folder / "tasks.json").write_text(text + "\n")


def call(args, texts, lines):
    return {"args": args, "texts": texts, "lines": lines}


def span(text, start, end):
    size = lambda n: len(text[:n].encode())
    return {"start": start, "end": end, "start_byte": size(start), "end_byte": size(end)}


def sizes(tokenizer, **more):
    vocabulary = transformers.AutoTokenizer.from_pretrained(TOKENIZERS / tokenizer)
    return dict(vocab_size=len(vocabulary), hidden_size=24, intermediate_size=36, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=64, pad_token_id=vocabulary.pad_token_id,
                hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **more)


def albert_inner():
    config = transformers.AlbertConfig(**(sizes("albert", embedding_size=16, num_hidden_groups=2, inner_group_num=2)
                                          | dict(num_hidden_layers=5)))
    save("albert_inner", transformers.AlbertModel(config), "albert", 1)


def bert_qa():
    config = transformers.BertConfig(**sizes("bert"))
    folder, model, tokenizer = save("bert_qa", transformers.BertForQuestionAnswering(config), "bert", 2)

    def answers(question, context, window, stride, top_k, longest, none=False):
        batch = tokenizer(question, context, truncation="only_second", max_length=window, stride=stride,
                          return_overflowing_tokens=True, return_offsets_mapping=True, return_tensors=None)
        found, least = [], 1e6
        for i in range(len(batch["input_ids"])):
            ids = batch["input_ids"][i]
            with torch.no_grad():
                out = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([batch["token_type_ids"][i]]))
            sequences = batch.sequence_ids(i)
            allowed = np.array([s == 1 or id == tokenizer.cls_token_id for s, id in zip(sequences, ids)])

            def chances(logits):
                x = np.where(allowed, logits[0].double().numpy(), -10000.0)
                x = np.exp(x - x.max())
                return x / x.sum()

            start, end = chances(out.start_logits), chances(out.end_logits)
            least = min(least, start[0] * end[0])
            start[0] = end[0] = 0.0
            scores = np.tril(np.triu(np.outer(start, end)), longest - 1).flatten()
            for at in np.argsort(-scores, kind="stable")[:top_k]:
                s, e = divmod(int(at), len(ids))
                if not (allowed[s] and allowed[e]):
                    continue
                encoding = batch[i]
                s_word, e_word = encoding.token_to_word(s), encoding.token_to_word(e)
                first = encoding.word_to_chars(s_word, 1)[0]
                last = encoding.word_to_chars(e_word, 1)[1]
                text = context[first:last]
                known = [f for f in found if f["answer"].lower() == text.lower()]
                if known:
                    known[0]["score"] += scores[at]
                else:
                    found.append({"answer": text, "score": scores[at], **span(context, first, last)})
        if none:
            found.append({"answer": "", "score": least, **span(context, 0, 0)})
        return {"answers": sorted(found, key=lambda f: -f["score"])[:top_k]}

    questions = ["a fox", "Where does the cat sleep?"]
    context = TEXTS[3] + " " + SINGLE
    tasks(folder, [
        call(["answer", "--context", context, "--top-k", "3"], questions,
             [answers(q, context, 64, 32, 3, 15) for q in questions]),
        call(["answer", "--context", LONG, "--window", "48", "--stride", "8", "--max-length", "4", "--no-answer",
              "--top-k", "4"], questions, [answers(q, LONG, 48, 8, 4, 4, True) for q in questions]),
    ])


def deberta_qa():
    # One term alone, distances beyond the table, narrow embeddings, absolute positions and token types.
    config = transformers.DebertaConfig(**sizes("deberta_v1"), relative_attention=True, pos_att_type=["p2c"],
                                        max_relative_positions=6, position_biased_input=True, type_vocab_size=2,
                                        embedding_size=16)
    save("deberta_qa", transformers.DebertaForQuestionAnswering(config), "deberta_v1", 7)


def deberta_v1_new_mlm():
    config = transformers.DebertaConfig(**sizes("deberta_v1"), relative_attention=True, pos_att_type="c2p|p2c",
                                        position_biased_input=False, legacy=False)
    save("deberta_v1_new_mlm", transformers.DebertaForMaskedLM(config), "deberta_v1", 8)


def deberta_v2_plain():
    # No position terms at all.
    config = transformers.DebertaV2Config(**sizes("deberta_v3"), relative_attention=False, pos_att_type=["c2p"])
    save("deberta_v2_plain", transformers.DebertaV2Model(config), "deberta_v3", 9)


def deberta_v2_wide():
    config = transformers.DebertaV2Config(**sizes("deberta_v3"), relative_attention=True, pos_att_type="p2c|c2p",
                                          position_buckets=6, max_relative_positions=20, share_att_key=False,
                                          position_biased_input=True, type_vocab_size=2, embedding_size=16,
                                          conv_kernel_size=5)
    save("deberta_v2_wide", transformers.DebertaV2Model(config), "deberta_v3", 10)


def deberta_v3_new_mlm():
    config = transformers.DebertaV2Config(**sizes("deberta_v3"), relative_attention=True, pos_att_type="c2p",
                                          position_buckets=10, share_att_key=True, norm_rel_ebd="layer_norm",
                                          position_biased_input=False, legacy=False)
    save("deberta_v3_new_mlm", transformers.DebertaV2ForMaskedLM(config), "deberta_v3", 11)


def distilbert_multi():
    names = ["joy", "anger", "fear", "a label with spaces"]
    config = transformers.DistilBertConfig(
        vocab_size=len(transformers.AutoTokenizer.from_pretrained(TOKENIZERS / "distilbert")), dim=24, hidden_dim=36,
        n_layers=2, n_heads=4, max_position_embeddings=64, dropout=0.0, attention_dropout=0.0,
        seq_classif_dropout=0.0, problem_type="multi_label_classification",
        id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    model = transformers.DistilBertForSequenceClassification(config)
    folder, model, tokenizer = save("distilbert_multi", model, "distilbert", 3)
    tokenizer.model_max_length = 64
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
    texts = TEXTS + [LONG]
    lines = [{"labels": found} for found in pipe(texts, top_k=None, truncation=True)]
    best = [{"labels": found} for found in pipe(texts, top_k=2, truncation=True)]
    tasks(folder, [call(["classify"], texts, lines), call(["classify", "--top-k", "2"], texts, best)])


def mpnet_cross():
    config = transformers.MPNetConfig(**(sizes("mpnet") | dict(max_position_embeddings=66)), num_labels=1)
    model = transformers.MPNetForSequenceClassification(config)
    folder, model, tokenizer = save("mpnet_cross", model, "mpnet", 4)
    query, texts = "a lazy dog", TEXTS + [LONG]
    batch = tokenizer([query] * len(texts), texts, padding=True, truncation="longest_first", max_length=64,
                      return_tensors="pt")
    with torch.no_grad():
        logits = model(**{k: v for k, v in batch.items() if k != "token_type_ids"}).logits[:, 0]
    lines = [{"score": torch.sigmoid(x).item(), "logit": x.item()} for x in logits]
    order = sorted(range(len(texts)), key=lambda i: -lines[i]["logit"])[:3]
    best = [{"index": i, **lines[i], "text": texts[i]} for i in order]
    tasks(folder, [call(["rerank", query], texts, lines), call(["rerank", query, "--top-k", "3"], texts, best)])


def roberta_tags():
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    config = transformers.RobertaConfig(**(sizes("roberta") | dict(max_position_embeddings=66)), type_vocab_size=1,
                                        id2label=dict(enumerate(names)),
                                        label2id={n: i for i, n in enumerate(names)})
    folder, model, tokenizer = save("roberta_tags", transformers.RobertaForTokenClassification(config), "roberta", 5)
    tokenizer.model_max_length = 64

    def lines(texts, **options):
        pipe = pipeline("token-classification", model=model, tokenizer=tokenizer, **options)
        of = lambda text, e: {k: v for k, v in e.items() if k in ("entity", "entity_group")} | {
            "score": float(e["score"]), "word": text[e["start"]:e["end"]], **span(text, e["start"], e["end"])}
        # Of several windows the pipeline compares the first entity with itself, and keeps it twice if it is empty.
        once = lambda found: [e for i, e in enumerate(found) if i == 0 or e != found[i - 1]]
        return [{"entities": once([of(text, e) for e in pipe(text)])} for text in texts]

    tasks(folder, [
        call(["tag"], TEXTS, lines(TEXTS, aggregation_strategy="simple")),
        call(["tag", "--aggregation", "none"], TEXTS, lines(TEXTS, aggregation_strategy="none")),
        call(["tag", "--stride", "16"], [LONG], lines([LONG], aggregation_strategy="simple", stride=16)),
    ])


def xlm_roberta_mlm():
    config = transformers.XLMRobertaConfig(**(sizes("roberta") | dict(max_position_embeddings=66)), type_vocab_size=1,
                                           tie_word_embeddings=False)
    folder, model, tokenizer = save("xlm_roberta_mlm", transformers.XLMRobertaForMaskedLM(config), "roberta", 6)
    pipe = pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=4)
    texts = ["The quick <mask> jumps.", "The <mask> fox jumps over the <mask> dog."]

    def line(text):
        found = pipe(text)
        found = found if isinstance(found[0], list) else [found]
        return {"masks": found}

    tasks(folder, [call(["fill-mask", "--top-k", "4"], texts, [line(text) for text in texts])])


if __name__ == "__main__":
    torch.manual_seed(0)
    for make in (albert_inner, bert_qa, deberta_qa, deberta_v1_new_mlm, deberta_v2_plain, deberta_v2_wide,
                 deberta_v3_new_mlm, distilbert_multi, mpnet_cross, roberta_tags, xlm_roberta_mlm):
        make()
        print(make.__name__)
