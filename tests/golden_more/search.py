#!/usr/bin/env python3
"""Makes search.json beside this file: 200 sentences, 20 queries, and how all-MiniLM-L6-v2 ranks them.

Usage: python3 search.py MODEL_DIR        (torch and transformers; the model from examples/get_models.sh)

Scores are cosines of mean-pooled embeddings in f32, as transformers computes them.
"""

import json
import pathlib
import sys

import torch
import transformers

TOPICS = {
    "cooking": ("the soup", "a cake", "fresh bread", "the roast chicken", "a pan of risotto"),
    "astronomy": ("a distant galaxy", "the comet", "Saturn's rings", "the space telescope", "a dying star"),
    "football": ("the striker", "our goalkeeper", "the referee", "the away team", "a late penalty"),
    "medicine": ("the vaccine", "a broken arm", "the surgeon", "high blood pressure", "an antibiotic"),
    "finance": ("the central bank", "a mortgage", "the share price", "inflation", "a pension fund"),
    "gardening": ("the roses", "a compost heap", "tomato seedlings", "the lawn", "an apple tree"),
    "programming": ("the compiler", "a memory leak", "the unit test", "a sorting algorithm", "the database index"),
    "music": ("the violinist", "a drum solo", "the choir", "an old guitar", "the opera"),
    "weather": ("the thunderstorm", "morning fog", "a heat wave", "heavy snow", "the hurricane"),
    "law": ("the judge", "a rental contract", "the witness", "an appeal", "the copyright claim"),
}
ENDINGS = {
    "cooking": ("needs more salt before it is served.", "was left in the oven for too long.",
                "smells wonderful in the whole kitchen.", "tastes better on the second day."),
    "astronomy": ("was photographed by astronomers last night.", "is millions of light years away from us.",
                  "can be seen without binoculars this week.", "tells us how the universe began."),
    "football": ("decided the match in extra time.", "was booed by the crowd in the stadium.",
                 "will be missing from the cup final.", "changed the result in the last minute."),
    "medicine": ("worries many patients in the clinic.", "was discussed by doctors at the hospital.",
                 "needs several weeks of treatment and rest.", "has fewer side effects than expected."),
    "finance": ("surprised investors on Wall Street.", "became more expensive after rates went up.",
                "is a risk for people with savings.", "was in the news of the stock exchange today."),
    "gardening": ("should be watered early in the morning.", "attracts bees and butterflies in summer.",
                  "has to be protected from frost.", "grows well in rich, dark soil."),
    "programming": ("was fixed in the latest release.", "takes too long on large inputs.",
                    "is explained in the developer documentation.", "crashed the server in production."),
    "music": ("moved the audience to tears.", "was recorded in a studio in Vienna.",
              "sounded out of tune at the concert.", "opened the festival on Friday evening."),
    "weather": ("is expected to reach the coast tomorrow.", "closed the airport for several hours.",
                "surprised the forecasters again.", "will last until the weekend."),
    "law": ("was rejected by the court in the end.", "kept the lawyers busy for a year.",
            "is based on a paragraph of the civil code.", "was settled before the trial began."),
}
QUERIES = [
    "how to bake bread", "what astronomers saw in the night sky", "who won the football game",
    "going to the doctor", "interest rates and loans", "taking care of plants", "why is my program slow",
    "a concert in Vienna", "will it rain tomorrow", "going to court over a contract",
    "the meal is overcooked", "looking at planets through a telescope", "penalty shoot-out", "pills against an infection",
    "losing money on shares", "planting trees", "debugging a crash", "singing in a choir", "flights cancelled by snow",
    "testimony in a trial",
]


def main(folder):
    sentences = [f"{subject[0].upper()}{subject[1:]} {ending}"
                 for topic in TOPICS for subject in TOPICS[topic] for ending in ENDINGS[topic]]
    assert len(sentences) == 200
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def embed(texts):
        batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    scores = embed(QUERIES) @ embed(sentences).T
    order = scores.argsort(dim=1, descending=True)
    lines = []
    for query, row, ranks in zip(QUERIES, scores, order):
        top = ranks[:50].tolist()
        lines.append({"query": query, "ranks": top, "scores": [round(row[i].item(), 6) for i in top]})
    out = {"model": "all-minilm-l6-v2", "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
           "sentences": sentences, "queries": lines}
    path = pathlib.Path(__file__).with_name("search.json")
    path.write_text(json.dumps(out, indent=1) + "\n")
    for line in lines:
        print(f"{line['query']:45s} {line['scores'][0]:.3f} {sentences[line['ranks'][0]]}")


if __name__ == "__main__":
    main(sys.argv[1])
