//! Experts' tensors as llama.cpp's converter writes them: one for each projection, `[experts, out, in]`.
//!
//! Per-expert matrices are stacked; gpt-oss's fused tensors are cut into gates (even outputs) and ups (odd
//! ones) and transposed; its MXFP4 blocks stay blocks, their nibbles in GGUF's order.

use llmc_frontend::weights::safetensors::SafetensorsFile;

use super::{
    Gguf,
    golden::{Elements, floats},
};

/// MXFP4's number.
const MXFP4: u32 = 39;

impl Gguf {
    /// The experts of every layer of a checkpoint, where there are any.
    pub(super) fn experts_of(
        &mut self,
        file: &SafetensorsFile,
        (layers, experts): (usize, usize),
        elements: Elements,
    ) {
        for layer in 0..layers {
            let of = |name: &str| floats(file, name);
            for (prefix, names) in [
                ("block_sparse_moe", ["w1", "w3", "w2"]),
                ("mlp", ["gate_proj", "up_proj", "down_proj"]),
            ] {
                for (gguf, own) in ["gate", "up", "down"].iter().zip(names) {
                    let each = (0..experts).map_while(|e| {
                        of(&format!(
                            "model.layers.{layer}.{prefix}.experts.{e}.{own}.weight"
                        ))
                    });
                    let all: Vec<_> = each.collect();
                    let Some((shape, _)) = all.first() else {
                        continue;
                    };
                    let shape = [experts, shape[0], shape[1]];
                    let values = all.iter().flat_map(|(_, values)| values.clone()).collect();
                    self.matrix(
                        &format!("blk.{layer}.ffn_{gguf}_exps.weight"),
                        &shape,
                        values,
                        elements,
                    );
                }
            }
            let fused = format!("model.layers.{layer}.mlp.experts");
            for (tensor, parts) in [
                ("gate_up_proj", &[("gate", 0), ("up", 1)][..]),
                ("down_proj", &[("down", 0)]),
            ] {
                let step = parts.len();
                for (gguf, first) in parts {
                    let name = format!("blk.{layer}.ffn_{gguf}_exps");
                    if let Some((shape, values)) = of(&format!("{fused}.{tensor}")) {
                        let (inputs, all) = (shape[1], shape[2]);
                        let shape = [experts, all / step, inputs];
                        let at = |e: usize, o: usize, i: usize| {
                            values[(e * inputs + i) * all + o * step + first]
                        };
                        let rows = (0..experts).flat_map(|e| (0..all / step).map(move |o| (e, o)));
                        let values = rows.flat_map(|(e, o)| (0..inputs).map(move |i| at(e, o, i)));
                        let values = values.collect();
                        self.matrix(&format!("{name}.weight"), &shape, values, elements);
                    } else if let Some(blocks) = file.data(&format!("{fused}.{tensor}_blocks")) {
                        let scales = file.data(&format!("{fused}.{tensor}_scales")).unwrap();
                        let shape = &file
                            .info(&format!("{fused}.{tensor}_blocks"))
                            .unwrap()
                            .shape;
                        let (rows, each) = (shape[1] as usize, shape[2] as usize);
                        let mut data = Vec::new();
                        for row in (0..experts * rows).filter(|row| row % step == *first) {
                            for block in row * each..(row + 1) * each {
                                let bytes = &blocks[block * 16..][..16];
                                let nibble = |i: usize| bytes[i / 2] >> (4 * (i % 2)) & 15;
                                data.push(scales[block]);
                                data.extend((0..16).map(|i| nibble(i) | nibble(i + 16) << 4));
                            }
                        }
                        let dims = [32 * each, rows / step, experts].map(|dim| dim as u64);
                        self.add(&format!("{name}.weight"), &dims, MXFP4, data);
                    } else {
                        continue;
                    }
                    let (shape, bias) = of(&format!("{fused}.{tensor}_bias")).unwrap();
                    let bias: Vec<f32> = bias.into_iter().skip(*first).step_by(step).collect();
                    let data = bias.iter().flat_map(|x| x.to_le_bytes()).collect();
                    let dims = [shape[1] / step, experts].map(|dim| dim as u64);
                    self.add(&format!("{name}.bias"), &dims, 0, data);
                }
            }
        }
    }

    /// A matrix, or several, of these elements.
    pub(super) fn matrix(
        &mut self,
        name: &str,
        shape: &[usize],
        values: Vec<f32>,
        elements: Elements,
    ) {
        let (ty, data) = match elements {
            Elements::F32 => (0, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Elements::F16 => {
                let halves = values.iter().map(|x| half::f16::from_f32(*x));
                (1, halves.flat_map(|x| x.to_le_bytes()).collect())
            }
            Elements::BF16 => {
                let halves = values.iter().map(|x| half::bf16::from_f32(*x));
                (30, halves.flat_map(|x| x.to_le_bytes()).collect())
            }
        };
        let dims: Vec<u64> = shape.iter().rev().map(|dim| *dim as u64).collect();
        self.add(name, &dims, ty, data);
    }
}
