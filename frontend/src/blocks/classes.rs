//! Layer classes: which layers share code.
//!
//! In: the structure of every layer, and after a first lowering the tensors of each. Out: [`Classes`], layers
//! that agree in structure and in the types of their weights.
//!
//! Invariants: every layer is in one class; classes and layers keep the model's order; a model whose layers agree
//! has one class, called `layer`.
//!
//! Not here: what a structure is (`decoder`, `encoder`).

use indexmap::IndexMap;
use llmc_ir::DType;
use llmc_ir::ops::Repeat;
use llmc_ir::source::tensor_name;

use super::{Catalog, Wanted};

/// Layers that share a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The function's name.
    pub name: String,
    /// Index of the structure in the blueprint.
    pub structure: usize,
    /// Absolute indices of its layers: slot → layer.
    pub layers: Vec<u32>,
}

/// All classes of a model, in the order of their first layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes(pub Vec<Class>);

impl Classes {
    /// One class per structure.
    pub fn by_structure(layers: &[usize], names: &[&str]) -> Self {
        let mut classes: IndexMap<usize, Vec<u32>> = IndexMap::new();
        for (layer, structure) in layers.iter().enumerate() {
            classes.entry(*structure).or_default().push(layer as u32);
        }
        let name = |structure: usize| names.get(structure).map_or("layer", |name| name).to_owned();
        let class = |(structure, layers)| Class {
            name: name(structure),
            structure,
            layers,
        };
        Self(classes.into_iter().map(class).collect())
    }

    /// Splits classes whose layers are stored in different types; the first part keeps the name.
    pub fn split_by_type(&self, wanted: &[Wanted], catalog: &dyn Catalog) -> Self {
        let mut split = Vec::new();
        for class in &self.0 {
            let patterns: Vec<&str> = wanted
                .iter()
                .filter(|w| w.layers == class.layers)
                .map(|w| w.pattern.as_str())
                .collect();
            let mut parts: IndexMap<Vec<Option<DType>>, Vec<u32>> = IndexMap::new();
            for layer in &class.layers {
                let types = patterns
                    .iter()
                    .map(|p| catalog.dtype(&tensor_name(p, Some(*layer)).replace("{expert}", "0")))
                    .collect();
                parts.entry(types).or_default().push(*layer);
            }
            for (part, layers) in parts.into_values().enumerate() {
                let name = if part == 0 {
                    class.name.clone()
                } else {
                    format!("{}.{part}", class.name)
                };
                split.push(Class {
                    name,
                    structure: class.structure,
                    layers,
                });
            }
        }
        split.sort_by_key(|class| class.layers.first().copied());
        Self(split)
    }

    /// The op that runs all layers in order.
    pub fn repeat(&self) -> Repeat {
        let layers = self.places().into_values().collect();
        Repeat { layers }
    }

    /// The op that runs the layers that `order` lists, one of them perhaps several times.
    pub fn repeat_in(&self, order: &[u32]) -> Repeat {
        let places = self.places();
        let layers = order.iter().filter_map(|layer| places.get(layer).cloned());
        Repeat {
            layers: layers.collect(),
        }
    }

    /// Class and slot of every layer, in the model's order.
    fn places(&self) -> IndexMap<u32, (String, u32)> {
        let mut places = IndexMap::new();
        for class in &self.0 {
            for (layer, slot) in class.layers.iter().zip(0..) {
                places.insert(*layer, (class.name.clone(), slot));
            }
        }
        places.sort_unstable_keys();
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_alternate() {
        let classes = Classes::by_structure(&[0, 0, 1, 0], &["layer.sliding", "layer.full"]);
        let found: Vec<_> = classes
            .repeat()
            .layers
            .into_iter()
            .map(|(c, s)| format!("{c} {s}"))
            .collect();
        assert_eq!(
            found,
            [
                "layer.sliding 0",
                "layer.sliding 1",
                "layer.full 0",
                "layer.sliding 2"
            ]
        );
    }

    #[test]
    fn layers_are_shared() {
        let classes = Classes::by_structure(&[0, 0], &["layer"]);
        let Repeat { layers } = classes.repeat_in(&[0, 0, 1, 1, 0]);
        let slots: Vec<u32> = layers.into_iter().map(|(_, slot)| slot).collect();
        assert_eq!(slots, [0, 0, 1, 1, 0]);
    }

    #[test]
    fn types_split_a_class() {
        struct Mixed;
        impl Catalog for Mixed {
            fn dtype(&self, tensor: &str) -> Option<DType> {
                Some(if tensor == "w.1" {
                    DType::F32
                } else {
                    DType::BF16
                })
            }
        }
        let classes = Classes::by_structure(&[0, 0, 0], &["layer"]);
        let wanted = Wanted {
            pattern: "w.{layer}".into(),
            layers: vec![0, 1, 2],
            shape: vec![1],
            stored: None,
            experts: None,
            why: String::new(),
            fill: crate::weights::synthetic::Fill::Constant(0.0),
        };
        let Classes(split) = classes.split_by_type(&[wanted], &Mixed);
        let found: Vec<_> = split
            .iter()
            .map(|c| (c.name.as_str(), c.layers.as_slice()))
            .collect();
        assert_eq!(found, [("layer", &[0, 2][..]), ("layer.1", &[1][..])]);
    }
}
