//! Token ids to the shared space.
//!
//! Owns: embeddings, which positions a token may look at, the position or mean that stands for the
//! text, and the way from there to the shared space. Does not own tokenising or normalisation of the
//! result.

use std::fmt;

use diptych_kernels::{Mask, Threads};
use serde::Serialize;

use super::layers::{Head, LayerNorm};
use super::transformer::{Transformer, TransformerSpec, Wanted};
use super::{in_groups, mean_of_rows};
use crate::anatomy::{NormParts, TextParts};
use crate::error::LoadError;
use crate::weights::{Floats, Weights};

/// What a position may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// Itself and what is before it.
    Causal,
    /// Every token of the text, but no padding.
    Masked,
    /// Everything, padding included: the tower always reads its whole context.
    Full,
}

/// What stands for a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first position that holds this id; position 0 when none does, as the libraries do it.
    FirstOf(u32),
    /// The first position that holds the largest id.
    Argmax,
    /// The first position.
    First,
    /// The last position of the context.
    Last,
    /// The mean over the tokens of the text.
    Mean,
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Causal => "causal attention",
            Self::Masked => "attention to all tokens but padding",
            Self::Full => "attention to all tokens and padding",
        })
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstOf(id) => write!(f, "at the first token {id}"),
            Self::Argmax => f.write_str("at the first of the largest token id"),
            Self::First => f.write_str("at the first position"),
            Self::Last => f.write_str("at the last position of the context"),
            Self::Mean => f.write_str("mean over the tokens"),
        }
    }
}

/// What decides the arithmetic of a text tower.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextSpec {
    /// The blocks.
    pub transformer: TransformerSpec,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Longest sequence, special tokens included.
    pub context: usize,
    /// What a position may look at.
    pub attention: Attention,
    /// What stands for the text.
    pub pooling: Pooling,
    /// The id that pads; only of interest where ids come padded.
    pub pad_id: u32,
}

impl TextSpec {
    /// The part of a sequence that decides its embedding: under a causal mask nothing after the
    /// pooled position can matter, and under a padding mask no pad does.
    ///
    /// # Panics
    /// If there are no ids.
    pub fn relevant<'a>(&self, ids: &'a [u32]) -> &'a [u32] {
        match self.attention {
            Attention::Full => ids,
            Attention::Masked => {
                let end = ids.iter().rposition(|&id| id != self.pad_id).map_or(1, |last| last + 1);
                &ids[..end.max(1)]
            }
            Attention::Causal => &ids[..=self.pooled_position(ids)],
        }
    }

    /// The position whose final state stands for the text, where a single one does.
    ///
    /// # Panics
    /// If there are no ids.
    pub fn pooled_position(&self, ids: &[u32]) -> usize {
        match self.pooling {
            Pooling::FirstOf(end) => ids.iter().position(|&id| id == end).unwrap_or(0),
            Pooling::Argmax => {
                let largest = ids.iter().max();
                ids.iter().position(|id| Some(id) == largest).unwrap_or(0)
            }
            Pooling::First => 0,
            Pooling::Last | Pooling::Mean => ids.len() - 1,
        }
    }
}

/// The text tower of a model.
pub(crate) struct TextTower {
    pub(crate) spec: TextSpec,
    /// `[vocab, hidden]`.
    tokens: Floats,
    /// `[context, hidden]`, with everything else that every text gets added at a position.
    positions: Vec<f32>,
    embedding_norm: Option<LayerNorm>,
    blocks: Transformer,
    final_norm: Option<LayerNorm>,
    head: Head,
}

impl TextTower {
    /// Takes the tensors of `parts`.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor.
    pub(crate) fn assemble(weights: &Weights, parts: TextParts) -> Result<Self, LoadError> {
        let transformer = parts.spec.transformer.with(weights);
        let norm = |parts: &Option<NormParts>| {
            parts.as_ref().map(|parts| LayerNorm::assemble(weights, parts)).transpose()
        };
        let mut positions = weights.rows(&parts.positions)?.to_vec();
        if let Some(source) = &parts.token_type {
            let kind = weights.rows(source)?;
            for row in positions.chunks_exact_mut(transformer.hidden) {
                row.iter_mut().zip(&*kind).for_each(|(p, t)| *p += t);
            }
        }
        Ok(Self {
            tokens: weights.rows(&parts.tokens)?,
            positions,
            embedding_norm: norm(&parts.embedding_norm)?,
            blocks: Transformer::assemble(weights, &parts.blocks, transformer.clone())?,
            final_norm: norm(&parts.final_norm)?,
            head: Head::assemble(weights, &parts.head)?,
            spec: TextSpec { transformer, ..parts.spec },
        })
    }

    /// Dimensions of the output.
    pub(crate) fn out(&self) -> usize {
        self.head.out(self.spec.transformer.hidden)
    }

    /// Projected, not normalised: `[texts, out]`, in order. Each sequence is what
    /// [`TextSpec::relevant`] leaves of it and not empty.
    pub(crate) fn forward(&self, sequences: &[&[u32]]) -> Vec<f32> {
        // Texts of like length share a group, so that little of it is padding.
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&i| sequences[i].len());
        let sorted: Vec<&[u32]> = order.iter().map(|&i| sequences[i]).collect();
        let rows = in_groups(&sorted, |ids| ids.len(), |group, threads| self.group(group, threads));
        let width = self.out();
        let mut out = vec![0f32; rows.len()];
        for (row, &i) in rows.chunks_exact(width).zip(&order) {
            out[i * width..][..width].copy_from_slice(row);
        }
        out
    }

    fn group(&self, sequences: &[&[u32]], threads: Threads) -> Vec<f32> {
        let longest = sequences.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let lengths: Vec<usize> = sequences.iter().map(|ids| ids.len()).collect();
        let x = self.embed(sequences, longest, threads);
        let mask = Mask {
            causal: self.spec.attention == Attention::Causal,
            lengths: (self.spec.attention == Attention::Masked).then_some(&lengths),
        };
        let pooled = match self.spec.pooling {
            Pooling::Mean => {
                let x = self.blocks.forward(x, sequences.len(), mask, Wanted::All, threads);
                self.mean_over_tokens(&x, &lengths, longest)
            }
            _ => {
                let rows: Vec<usize> = sequences
                    .iter()
                    .enumerate()
                    .map(|(i, ids)| i * longest + self.spec.pooled_position(ids))
                    .collect();
                self.blocks.forward(x, sequences.len(), mask, Wanted::Rows(&rows), threads)
            }
        };
        let pooled = match &self.final_norm {
            Some(norm) => norm.forward(&pooled, threads),
            None => pooled,
        };
        self.head.forward(pooled, sequences.len(), threads)
    }

    /// Token and position embeddings, `[texts * longest, hidden]`. Shorter texts are filled up with
    /// token 0, which no position that matters looks at.
    fn embed(&self, sequences: &[&[u32]], longest: usize, threads: Threads) -> Vec<f32> {
        let hidden = self.spec.transformer.hidden;
        let mut x = Vec::with_capacity(sequences.len() * longest * hidden);
        for ids in sequences {
            for (position, id) in (0..longest).map(|i| (i, ids.get(i).copied().unwrap_or(0))) {
                let token = &self.tokens[id as usize * hidden..][..hidden];
                let position = &self.positions[position * hidden..][..hidden];
                x.extend(token.iter().zip(position).map(|(t, p)| t + p));
            }
        }
        match &self.embedding_norm {
            Some(norm) => norm.forward(&x, threads),
            None => x,
        }
    }

    fn mean_over_tokens(&self, x: &[f32], lengths: &[usize], longest: usize) -> Vec<f32> {
        let hidden = self.spec.transformer.hidden;
        let mut pooled = Vec::with_capacity(lengths.len() * hidden);
        for (states, &length) in x.chunks_exact(longest * hidden).zip(lengths) {
            pooled.extend(mean_of_rows(&states[..length * hidden], hidden));
        }
        pooled
    }
}
