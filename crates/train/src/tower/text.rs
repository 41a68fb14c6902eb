//! Token ids to the shared space.
//!
//! Owns: embeddings, which positions a token may look at, and the position or mean that stands for the
//! text. Deliberately absent: tokenising, and the blocks.

use diptych_encoder::anatomy::{Attention, TextParts, TextPooling, TextSpec};

use super::Open;
use super::blocks::{Blocks, Extent};
use super::spans::{Head, norm, rows};
use crate::params::{Init, Layout, Params, Span};
use crate::tape::{LinearSpan, NOTHING, Node, NormSpan, Tape};

/// A text tower.
#[derive(Debug, Clone)]
pub(crate) struct TextTower {
    spec: TextSpec,
    tokens: Span,
    positions: Span,
    token_type: Option<Span>,
    embedding_norm: Option<NormSpan>,
    blocks: Blocks,
    final_norm: Option<NormSpan>,
    head: Head,
    out: usize,
}

impl TextTower {
    /// Appends the tower's tensors to a layout.
    pub fn new(parts: &TextParts, open: Open, layout: &mut Layout) -> Self {
        let (spec, embeddings) = (parts.spec.clone(), open.embeddings());
        let row =
            |layout: &mut Layout, source, std| rows(layout, source, Init::Normal(std), false, embeddings);
        Self {
            tokens: rows(layout, &parts.tokens, Init::Normal(0.02), true, embeddings),
            positions: row(layout, &parts.positions, 0.01),
            token_type: parts.token_type.as_ref().map(|source| row(layout, source, 0.02)),
            embedding_norm: parts.embedding_norm.as_ref().map(|parts| norm(layout, parts, embeddings)),
            blocks: Blocks::new(layout, &parts.blocks, &spec.transformer, open),
            final_norm: parts.final_norm.as_ref().map(|parts| norm(layout, parts, open.head())),
            head: Head::new(layout, &parts.head, open.head()),
            out: parts.out(),
            spec,
        }
    }

    /// Dimensions of the shared space.
    pub fn out(&self) -> usize {
        self.out
    }

    /// The layer that it ends with, if that is linear.
    pub fn last_layer(&self) -> Option<&LinearSpan> {
        self.head.last_layer()
    }

    /// Embeds texts into rows of the shared space, not yet of unit length. Each is a sequence of ids of
    /// the vocabulary, as the family's tokenizer gives it; texts of like length waste the least.
    ///
    /// # Panics
    /// If a text is empty or longer than the context, or an id is outside the vocabulary.
    pub fn forward(&self, tape: &mut Tape, params: &Params<'_>, texts: &[&[u32]]) -> Node {
        let (spec, mark) = (&self.spec, tape.mark());
        let texts: Vec<&[u32]> = texts.iter().map(|ids| spec.relevant(ids)).collect();
        let lengths: Vec<usize> = texts.iter().map(|ids| ids.len()).collect();
        let (samples, tokens) = (texts.len(), lengths.iter().copied().max().unwrap_or(1));
        let mut x = self.embed(tape, params, &texts, tokens);
        let picks: Vec<usize> = texts.iter().map(|ids| spec.pooled_position(ids)).collect();
        let whole = spec.pooling == TextPooling::Mean;
        let causal = spec.attention == Attention::Causal;
        // What is behind a text is here only because another text of the chunk is longer.
        let padded = !causal && lengths.iter().any(|length| *length < tokens);
        let e = Extent {
            samples,
            tokens,
            causal,
            lengths: padded.then_some(&lengths),
            picks: (!whole).then_some(&picks),
        };
        x = self.blocks.forward(tape, params, x, e, mark);
        if whole {
            x = tape.mean(x, lengths.iter().enumerate().map(|(i, length)| i * tokens..i * tokens + length));
        }
        if let Some(norm) = &self.final_norm {
            x = tape.layer_norm(x, norm, params);
        }
        x = self.head.forward(tape, params, x);
        tape.release(mark, x);
        x
    }

    /// The input of the first block, `[texts * tokens, hidden]`.
    fn embed(&self, tape: &mut Tape, params: &Params<'_>, texts: &[&[u32]], tokens: usize) -> Node {
        let hidden = self.spec.transformer.hidden;
        let ids = texts
            .iter()
            .flat_map(|ids| (0..tokens).map(move |i| ids.get(i).map_or(NOTHING, |id| *id as usize)));
        let mut x = tape.lookup(self.tokens, hidden, ids, params);
        x = tape.add_rows(x, self.positions.cut(0, tokens * hidden), params);
        if let Some(token_type) = self.token_type {
            x = tape.add_rows(x, token_type, params);
        }
        match &self.embedding_norm {
            Some(norm) => tape.layer_norm(x, norm, params),
            None => x,
        }
    }
}
