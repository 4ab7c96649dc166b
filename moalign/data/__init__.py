"""Data: from files and data sets to pairs of token ids.

sources   read_rows: rows of JSONL, JSONL.gz, parquet, a saved data set or a hub name, each with its place
formats   what a row may look like: TRL's formats unchanged, and scored responses
load      load_pairs, load_prompts, load_scored, load_completions: whole sources, bad rows refused or set aside
scored    pairs_from_scores, relabel: pairs made from scores, per objective
tokenize  tokenize_pairs, prompt_ids, response_ids: token ids, EOS exactly once
split     split_by_prompt: held-out prompts that stay held out
"""

from moalign.data.load import (
    LoadedCompletions,
    LoadedPairs,
    LoadedScored,
    ScoredResponses,
    load_completions,
    load_pairs,
    load_prompts,
    load_scored,
)
from moalign.data.scored import Labels, pairs_from_scores, relabel
from moalign.data.sources import Row, read_rows
from moalign.data.split import split_by_prompt
from moalign.data.tokenize import prompt_ids, response_ids, tokenize_pairs, tokenize_prompts, tokenize_texts

__all__ = [
    "Labels",
    "LoadedCompletions",
    "LoadedPairs",
    "LoadedScored",
    "Row",
    "ScoredResponses",
    "load_completions",
    "load_pairs",
    "load_prompts",
    "load_scored",
    "pairs_from_scores",
    "prompt_ids",
    "read_rows",
    "relabel",
    "response_ids",
    "split_by_prompt",
    "tokenize_pairs",
    "tokenize_prompts",
    "tokenize_texts",
]
