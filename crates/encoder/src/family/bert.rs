//! BERT and RoBERTa as text towers.
//!
//! Owns: the names of `BertModel`'s tensors, its embeddings, and how padding is masked. Which state
//! stands for a text and what maps it to the shared space is the family's affair.

use serde_json::Value;

use super::blocks::BlockNames;
use crate::activation::Activation;
use crate::anatomy::{HeadParts, LinearParts, NormParts, Source, TextParts};
use crate::error::LoadError;
use crate::json::Section;
use crate::precision::Precision;
use crate::tower::text::{Attention, Pooling, TextSpec};
use crate::tower::transformer::{NormOrder, TransformerSpec};
use crate::weights::Weights;

/// The sizes of a BERT.
pub(super) struct BertConfig {
    pub(super) vocab_size: usize,
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) activation: Activation,
    pub(super) eps: f64,
    /// Rows of the position table.
    pub(super) positions: usize,
    /// Rows of the token type table; only the first is used.
    pub(super) token_types: usize,
    pub(super) pad_id: u32,
    /// The row of a text's first position: RoBERTa counts from behind the pad's id.
    pub(super) first_position: usize,
}

/// Which state leaves the tower.
pub(super) enum Pooler {
    /// A pooling of the last states.
    State(Pooling),
    /// The first state through BERT's own pooler, a linear layer with tanh.
    Dense,
}

impl BertConfig {
    /// Reads a `text_config`. Absent keys take the defaults of `BertConfig`.
    pub(super) fn from_section(section: &Section<'_>) -> Result<Self, LoadError> {
        let roberta = match section.get::<String>("model_type")?.as_deref() {
            None | Some("bert" | "chinese_clip_text_model") => false,
            Some("roberta" | "xlm-roberta") => true,
            Some(kind) => {
                let reason = format!(
                    "is '{kind}', but known text towers are bert, roberta and xlm-roberta; use a checkpoint with one of these"
                );
                return Err(section.error("model_type", reason));
            }
        };
        section.refuse(&["is_decoder", "add_cross_attention"])?;
        match section.get::<String>("position_embedding_type")?.as_deref() {
            None | Some("absolute") => {}
            Some(kind) => {
                let reason = format!("is '{kind}', but only 'absolute' is supported; use another checkpoint");
                return Err(section.error("position_embedding_type", reason));
            }
        }
        let pad_id: u32 = section.get_or("pad_token_id", u32::from(roberta))?;
        let config = Self {
            vocab_size: section.size("vocab_size", if roberta { 50265 } else { 30522 }, (1, 1 << 24))?,
            hidden: section.size("hidden_size", 768, (1, 1 << 16))?,
            inner: section.size("intermediate_size", 3072, (1, 1 << 18))?,
            layers: section.size("num_hidden_layers", 12, (1, 1024))?,
            heads: section.size("num_attention_heads", 12, (1, 1 << 12))?,
            activation: section.activation("hidden_act", Activation::Gelu)?,
            eps: section.epsilon("layer_norm_eps", 1e-12)?,
            positions: section.size("max_position_embeddings", 512, (2, 1 << 16))?,
            token_types: section.size("type_vocab_size", 2, (1, 16))?,
            pad_id,
            first_position: if roberta { pad_id as usize + 1 } else { 0 },
        };
        if !config.hidden.is_multiple_of(config.heads) {
            return Err(section.heads_error(config.heads, config.hidden));
        }
        if config.first_position >= config.positions {
            let reason = format!(
                "is {}, which leaves no position behind the pad's id {pad_id}; use the config.json of these weights",
                config.positions
            );
            return Err(section.error("max_position_embeddings", reason));
        }
        Ok(config)
    }

    /// Sizes from the shapes of the tensors, for families whose configuration gives only a name.
    /// Heads are 64 wide in every published BERT of those.
    pub(super) fn from_shapes(weights: &Weights, prefix: &str, roberta: bool) -> Result<Self, LoadError> {
        let shape = |name: &str| -> Result<(usize, usize), LoadError> {
            let name = format!("{prefix}{name}");
            match weights.shape(&name)? {
                [rows, columns] => Ok((*rows, *columns)),
                found => Err(LoadError::TensorShape { name, expected: vec![0, 0], found: found.to_vec() }),
            }
        };
        let (vocab_size, hidden) = shape("embeddings.word_embeddings.weight")?;
        let layers = (0..)
            .take_while(|i| weights.has(&format!("{prefix}encoder.layer.{i}.output.dense.weight")))
            .count();
        let (positions, first_position) =
            (shape("embeddings.position_embeddings.weight")?.0, if roberta { 2 } else { 0 });
        if first_position >= positions {
            let name = format!("{prefix}embeddings.position_embeddings.weight");
            let (expected, found) = (vec![first_position + 1, hidden], vec![positions, hidden]);
            return Err(LoadError::TensorShape { name, expected, found });
        }
        Ok(Self {
            vocab_size,
            hidden,
            inner: shape("encoder.layer.0.intermediate.dense.weight")?.0,
            layers,
            heads: (hidden / 64).max(1),
            activation: Activation::Gelu,
            eps: if roberta { 1e-5 } else { 1e-12 },
            positions,
            token_types: shape("embeddings.token_type_embeddings.weight")?.0,
            pad_id: u32::from(roberta),
            first_position,
        })
    }

    /// Longest sequence, special tokens included.
    pub(super) fn context(&self) -> usize {
        self.positions - self.first_position
    }
}

/// The tower below `prefix`; `head` maps the pooled state to the shared space.
pub(super) fn tower(prefix: &str, config: &BertConfig, pooler: Pooler, mut head: HeadParts) -> TextParts {
    let hidden = config.hidden;
    let name = |part: &str| format!("{prefix}{part}");
    let table = |part: &str, rows| {
        Source::whole(name(&format!("embeddings.{part}_embeddings.weight")), &[rows, hidden])
    };
    let pooling = match pooler {
        Pooler::State(pooling) => pooling,
        Pooler::Dense => {
            let dense = LinearParts::biased(&name("pooler.dense"), (hidden, hidden));
            head.insert(0, (dense, Some(Activation::Tanh)));
            Pooling::First
        }
    };
    let transformer = TransformerSpec {
        hidden,
        inner: config.inner,
        layers: config.layers,
        heads: config.heads,
        activation: config.activation,
        eps: config.eps,
        norm: NormOrder::After,
        qkv_bias: true,
        layer_scale: false,
        precision: Precision::F32,
    };
    TextParts {
        tokens: table("word", config.vocab_size),
        positions: table("position", config.positions).part(config.first_position..config.positions),
        // Every token is of the first type.
        token_type: Some(table("token_type", config.token_types).part(0..1)),
        embedding_norm: Some(NormParts::named(&name("embeddings.LayerNorm"), hidden, config.eps)),
        blocks: BlockNames::BERT.parts(|i| name(&format!("encoder.layer.{i}.")), &transformer),
        final_norm: None,
        head,
        spec: TextSpec {
            transformer,
            vocab_size: config.vocab_size,
            context: config.context(),
            attention: Attention::Masked,
            pooling,
            pad_id: config.pad_id,
        },
    }
}

/// The tower of a Hugging Face family: `text_model.` with a linear projection.
pub(super) fn projected(section: &Section<'_>, pooler: Pooler, out: usize) -> Result<TextParts, LoadError> {
    let config = BertConfig::from_section(section)?;
    let head = vec![(LinearParts::unbiased("text_projection", (out, config.hidden)), None)];
    Ok(tower("text_model.", &config, pooler, head))
}

/// The object that describes a tower. Old files carry both spellings; the library builds a whole
/// configuration from the `_dict` one, defaults included, and lets it override the other.
pub(super) fn tower_section<'a>(
    top: &Section<'a>,
    legacy: &'a str,
    name: &'a str,
) -> Result<Section<'a>, LoadError> {
    match top.value(legacy) {
        Some(Value::Object(_)) => top.section(legacy),
        _ => top.section(name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// RoBERTa's first position is behind the pad's id; a table that ends before it used to give a tower
    /// of a length below 0.
    #[test]
    fn a_position_table_without_a_first_position_is_refused() {
        for (positions, fits) in [(2, false), (3, true)] {
            let config = json!({"model_type": "roberta", "max_position_embeddings": positions});
            let section = Section::new("config.json", "text_config", &config).expect("an object");
            match BertConfig::from_section(&section) {
                Ok(config) => assert!(fits && config.context() == 1, "{positions}"),
                Err(e) => assert!(!fits && e.to_string().contains("max_position_embeddings"), "{e}"),
            }
        }
    }
}
