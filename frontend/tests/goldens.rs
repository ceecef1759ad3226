//! Every golden model directory and tokenizer is read without a complaint.

use std::path::{Path, PathBuf};

use llmc_frontend::tokenizer::{Kind, Tokenizer};
use llmc_frontend::{Input, ModelDir, Overrides, WeightSource};

fn golden(part: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(part);
    let mut folders: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    folders
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn model_directories_load() {
    for folder in golden("models") {
        let input = Input::resolve(folder.to_str().unwrap()).unwrap();
        let model = ModelDir::open(&input, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            model.tokenizer.is_some(),
            folder.join("tokenizer.json").exists(),
            "{}",
            name(&folder)
        );
        let weights = model.checkpoint().unwrap_or_else(|e| panic!("{e}"));
        let mut bytes = 0;
        for tensor in weights.names() {
            let info = weights.info(tensor).unwrap();
            let data = weights.read(tensor, 0..info.bytes()).unwrap();
            assert_eq!(data.len() as u64, info.bytes());
            weights.release(tensor, 0..info.bytes());
            bytes += info.bytes();
        }
        assert!(bytes > 0, "{}", name(&folder));
    }
}

#[test]
fn tokenizers_load() {
    for folder in golden("tokenizers") {
        let tokenizer = Tokenizer::open(&folder, None).unwrap_or_else(|e| panic!("{e}"));
        let kind = match name(&folder).trim_end_matches("_1k") {
            "albert" | "deberta_v3" | "t5" | "t5_image" => Kind::Unigram,
            "bert" | "distilbert" | "mpnet" => Kind::WordPiece,
            "gemma" | "llama" | "mistral" | "phi3" => Kind::SentencePieceBpe,
            "gpt1" => Kind::CharacterBpe,
            _ => Kind::ByteLevelBpe,
        };
        assert_eq!(tokenizer.kind, kind, "{}", name(&folder));
        for special in &tokenizer.special {
            assert!(special.id.is_some(), "{}: {special:?}", name(&folder));
        }
    }
}
