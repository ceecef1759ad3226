//! Writes what the fuzzer starts from: a small GGUF file of each architecture, with plain and with block weights.

#[allow(dead_code, unused_imports)]
#[path = "../../src/gguf/mod.rs"]
mod gguf;

fn main() {
    let folder = std::env::args().nth(1).expect("usage: gguf-seeds FOLDER");
    let folder = std::path::Path::new(&folder);
    std::fs::create_dir_all(folder).unwrap();
    for arch in ["bert", "gemma3", "llama", "qwen2", "t5"] {
        for (name, ty) in [
            ("f16", (1, 1, 2)),
            ("q4_0", (2, 32, 18)),
            ("q8_0", (8, 32, 34)),
        ] {
            gguf::Gguf::tiny(arch, ty).write(&folder.join(format!("{arch}-{name}.gguf")));
        }
    }
}
