//! Pictures that a language model is told: rows of its prompts are what queries find in a picture.
//!
//! Input: pixel values, and ids in which tokens stand for pictures. Output: the rows of a picture, and prompts with
//! such rows in their tokens' places. The tokens of a picture are as many as its queries; a token of the same id
//! that the model writes later is a token like others.
//!
//! Not here: files (`pictures`), any task.

use crate::engine::{Engine, Rows, StepView, Work};
use crate::{Error, Result, pictures};
use llmc_abi::{Entry, Manifest, PictureTokens, Pictures};
use std::slice::ChunksExact;

/// How a model is told pictures.
#[derive(Clone, Copy, Debug)]
pub struct Told<'m> {
    pub model: &'m Pictures,
    pub tokens: PictureTokens,
    /// The type of tokens that rows stand for.
    of_type: i32,
    /// Width of a row.
    width: usize,
    /// The output of the entry that asks.
    output: usize,
}

/// Rows in the places of some of a prompt's tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// Token types `[n]`; empty where there is no picture.
    pub types: &'a [i32],
    /// `[n, width]`; zeros in the places of other tokens.
    pub rows: &'a [f32],
}

/// A prompt that may hold pictures.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    pub ids: Vec<u32>,
    types: Vec<i32>,
    rows: Vec<f32>,
}

impl<'m> Told<'m> {
    /// Of a model that is told pictures.
    pub fn of(m: &'m Manifest) -> Result<Option<Told<'m>>> {
        let Some(model) = &m.pictures else {
            return Ok(None);
        };
        let Some(tokens) = model.told else {
            return Ok(None);
        };
        // What reads prompts, and what makes their rows.
        let reads = m.other(Entry::Encode).map_or(&m.inputs, |e| &e.inputs);
        let asks = m.other(Entry::Qformer).map(|e| &e.outputs);
        let output = |name: &str| asks.and_then(|o| o.iter().position(|o| o.name == name));
        let found = reads
            .iter()
            .find_map(|i| Some((i, i.of_type?, output(&i.name)?)));
        let Some((input, of_type, output)) = found.filter(|_| tokens.count > 0) else {
            return Err(Error::Payload(
                "pictures in texts, but nothing that puts them there".into(),
            ));
        };
        let width = input.width as usize;
        Ok(Some(Told {
            model,
            tokens,
            of_type: of_type as i32,
            width,
            output,
        }))
    }

    /// The rows of one picture, `[queries, width]`; `sink` gets what both entries give besides. The engine is planned
    /// for a sequence more than are open.
    pub fn see(
        &self,
        engine: &mut Engine<'_>,
        pixels: &[f32],
        sink: &mut dyn FnMut(Entry, &StepView<'_>),
    ) -> Result<Vec<f32>> {
        let seq = engine.open()?;
        pictures::run(engine, self.model, pixels, Some(seq), &mut |view| {
            sink(Entry::Vision, view);
            Ok(())
        })?;
        let ids = vec![0; self.tokens.count as usize];
        let work = Work {
            seq: Some(seq),
            ids: &ids,
            types: &[],
            rows: Rows::None,
        };
        let mut rows = Vec::with_capacity(ids.len() * self.width);
        engine.run_of(Entry::Qformer, &[work], &[], &mut |view| {
            sink(Entry::Qformer, view);
            (0..view.spans[0].len).for_each(|token| rows.extend(view.row(self.output, token)));
            Ok(())
        })?;
        engine.close(seq);
        match rows.len() == ids.len() * self.width {
            true => Ok(rows),
            false => Err(Error::Payload(
                "rows of pictures of another width than those of texts".into(),
            )),
        }
    }

    /// The rows of pictures one by one.
    pub fn rows<'r>(&self, all: &'r [f32]) -> ChunksExact<'r, f32> {
        all.chunks_exact(self.width)
    }

    /// Whether an id stands for a row of a picture.
    pub fn stands(&self, id: i32) -> bool {
        u32::try_from(id) == Ok(self.tokens.id)
    }

    /// Types and rows of `ids`, with the next of `rows` in the places of the tokens that stand for them.
    pub fn place(&self, ids: &[i32], rows: &mut ChunksExact<'_, f32>) -> (Vec<i32>, Vec<f32>) {
        let mut types = vec![0; ids.len()];
        let mut placed = vec![0.0; ids.len() * self.width];
        let places = types.iter_mut().zip(placed.chunks_exact_mut(self.width));
        for (&id, (ty, place)) in ids.iter().zip(places) {
            if let Some(row) = Some(id)
                .filter(|&id| self.stands(id))
                .and_then(|_| rows.next())
            {
                *ty = self.of_type;
                place.copy_from_slice(row);
            }
        }
        (types, placed)
    }

    /// A picture's tokens before a text's.
    pub fn ids(&self, text: &[u32]) -> Vec<u32> {
        let mut ids = vec![self.tokens.id; self.tokens.count as usize];
        ids.extend(text);
        ids
    }

    /// A picture before a text. Tokens of the text are none of the picture, whatever their ids.
    pub fn prompt(&self, features: &[f32], text: &[u32]) -> Prompt {
        let ids = self.ids(text);
        let (types, rows) = self.place(&crate::session::as_i32(&ids), &mut self.rows(features));
        Prompt { ids, types, rows }
    }
}

impl Prompt {
    /// What stands in the places of tokens.
    pub fn given(&self) -> Given<'_> {
        Given {
            types: &self.types,
            rows: &self.rows,
        }
    }
}

impl Given<'_> {
    /// Of the tokens behind the first `n`.
    pub fn behind(&self, n: usize) -> Self {
        let width = self.rows.len() / self.types.len().max(1);
        Given {
            types: self.types.get(n..).unwrap_or_default(),
            rows: self.rows.get(n * width..).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_abi::{EntryInfo, Input, Output};

    fn manifest() -> Manifest {
        let input = |of_type| Input {
            name: "image_features".into(),
            width: 2,
            of_type,
            ..Input::default()
        };
        let output = Output {
            name: "image_features".into(),
            width: 2,
            ..Output::default()
        };
        let other = EntryInfo {
            entry: Entry::Qformer,
            outputs: vec![output],
            ..EntryInfo::default()
        };
        Manifest {
            inputs: vec![input(Some(1))],
            others: vec![other],
            pictures: Some(Pictures {
                image_size: 8,
                patch_size: 4,
                steps: None,
                similarity: None,
                told: Some(PictureTokens { id: 9, count: 2 }),
            }),
            ..Manifest::default()
        }
    }

    #[test]
    fn rows_stand_for_the_first_tokens_of_the_id() {
        let m = manifest();
        let told = Told::of(&m).unwrap().unwrap();
        // The text's own token of that id is no picture.
        let prompt = told.prompt(&[0.1, 0.2, 0.3, 0.4], &[5, 9]);
        assert_eq!(prompt.ids, [9, 9, 5, 9]);
        let given = prompt.given();
        assert_eq!(given.types, [1, 1, 0, 0]);
        assert_eq!(given.rows, [0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0, 0.0]);
        let rest = given.behind(1);
        assert_eq!((rest.types, rest.rows.len()), (&[1, 0, 0][..], 6));
        assert_eq!(rest.rows[..2], [0.3, 0.4]);
        assert!(Given::default().behind(3).types.is_empty());
    }

    #[test]
    fn a_manifest_without_the_input_is_refused() {
        let mut m = manifest();
        m.inputs[0].of_type = None;
        assert!(Told::of(&m).is_err());
        m.pictures = None;
        assert!(Told::of(&m).unwrap().is_none());
    }
}
