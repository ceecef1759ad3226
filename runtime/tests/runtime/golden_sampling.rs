//! The sampler against Hugging Face's warped distributions of `tests/golden/models/gpt2`.

use llmc_runtime::sampler::Sampler;
use llmc_runtime::sampling_params::{GREEDY, SamplingParams};
use safetensors::SafeTensors;
use std::path::Path;

#[test]
fn distributions_are_those_of_hugging_face() {
    let path = "../tests/golden/models/gpt2/golden.safetensors";
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let data = tensors.tensor(name).unwrap().data();
        data.chunks(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let logits = floats("out.single.logits");
    let last = &logits[logits.len() - 300..];
    let check = |name: &str, params: SamplingParams| {
        let mut sampler = Sampler::new(params, 300, &[], 0);
        let got = sampler.distribution(last).unwrap();
        for (i, (g, e)) in got
            .iter()
            .zip(floats(&format!("out.warp.{name}.probs")))
            .enumerate()
        {
            assert!(
                (g - e).abs() < 1e-4 && (*g > 0.0) == (e > 0.0),
                "{name} {i}: {g} is not {e}"
            );
        }
    };
    let cold = SamplingParams {
        temperature: 0.7,
        ..GREEDY
    };
    check("temperature_0.7", cold);
    check("t0.7_topk10", SamplingParams { top_k: 10, ..cold });
    check(
        "t0.7_topk10_topp0.8",
        SamplingParams {
            top_k: 10,
            top_p: 0.8,
            ..cold
        },
    );
    check(
        "minp_0.1",
        SamplingParams {
            min_p: 0.1,
            ..GREEDY
        },
    );
}
