//! Paths that name no model.

use super::*;

#[test]
fn inputs() {
    let folder = copy_of("llama2_mha");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["m.gguf", "m.bin", "m.txt"] {
        write(folder.path(), name, b"GGML");
    }
    for (input, kind, expected) in [
        (
            "hf:org/name".to_owned(),
            Unsupported,
            "hf:org/name: downloading",
        ),
        (path("m.bin"), Unsupported, "m.bin: a pickle checkpoint"),
        (
            path("m.txt"),
            Wrong,
            "m.txt: expected a Hugging Face directory",
        ),
        (
            path(WEIGHTS),
            Wrong,
            "model.safetensors: weights without a configuration",
        ),
        (path("absent"), Io, "cannot open "),
        (
            "/dev/null".to_owned(),
            Wrong,
            "/dev/null: neither a directory nor a file",
        ),
    ] {
        let error = Input::resolve(&input).unwrap_err();
        let found = match &error {
            FrontendError::Input(_) => Wrong,
            FrontendError::Unsupported(_) => Unsupported,
            _ => Io,
        };
        assert_eq!(found, kind, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let options = BuildOptions {
        max_context: Some(193),
        ..BuildOptions::default()
    };
    let dir = ModelDir::open(
        &Input::Directory(folder.path().into()),
        &Overrides::default(),
    )
    .unwrap();
    let error = Model::build(&dir, &options).err().unwrap().to_string();
    assert!(
        error.contains("--max-context: found 193, expected 1 to the model's context (192)"),
        "{error}"
    );
}
