//! What a tower is made of: which named tensor of a checkpoint holds which part.
//!
//! Owns: the description of vision and text transformers that the inference towers are packed from,
//! and that training reads to give the same towers gradients. A family's whole knowledge of names and
//! sizes ends up here. Deliberately absent: values and arithmetic.

use std::ops::Range;

use diptych_kernels::Activation;

pub use crate::tower::text::{Attention, Pooling as TextPooling, TextSpec};
pub use crate::tower::transformer::{NormOrder, TransformerSpec};
pub use crate::tower::vit::{Pooling as VitPooling, VitSpec};

/// Rows of a stored tensor, which is read as a matrix: its first dimension (or its last, when it is
/// transposed) counts rows, all others together are the columns. A vector is a matrix of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// First row that is meant.
    pub first: usize,
    /// Rows that are meant.
    pub rows: usize,
    /// Whether it is stored `[input, out]` and multiplied from the right. Always whole, then.
    pub transposed: bool,
}

impl Source {
    /// All of a tensor.
    pub fn whole(name: impl Into<String>, shape: &[usize]) -> Self {
        let rows = shape.first().copied().unwrap_or(1);
        Self { name: name.into(), shape: shape.to_vec(), first: 0, rows, transposed: false }
    }

    /// All of a matrix that is stored `[input, out]`.
    pub fn transposed(name: impl Into<String>, out: usize, input: usize) -> Self {
        Self { rows: out, transposed: true, ..Self::whole(name, &[input, out]) }
    }

    /// Only these rows of it.
    #[must_use]
    pub fn part(self, rows: Range<usize>) -> Self {
        Self { first: rows.start, rows: rows.len(), ..self }
    }

    /// Values in a row.
    pub fn columns(&self) -> usize {
        match (self.transposed, self.shape.as_slice()) {
            (true, [rest @ .., _]) | (false, [_, rest @ ..]) => rest.iter().product(),
            (_, []) => 1,
        }
    }

    /// Where the rows are among the stored values, unless they are transposed.
    pub fn range(&self) -> Range<usize> {
        let columns = self.columns();
        self.first * columns..(self.first + self.rows) * columns
    }
}

/// `y = (x W^T + b) * scale`, W being `[out, input]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearParts {
    /// What the rows of W are stacked from: queries, keys and values may be three tensors.
    pub weight: Vec<Source>,
    /// The same for the bias; empty without one.
    pub bias: Vec<Source>,
    /// A factor per output (layer scale).
    pub scale: Option<Source>,
    /// Width of the output.
    pub out: usize,
    /// Width of the input.
    pub input: usize,
}

impl LinearParts {
    /// `{name}.weight`, `[out, input]`, without a bias.
    pub(crate) fn unbiased(name: &str, (out, input): (usize, usize)) -> Self {
        Self::of(Source::whole(format!("{name}.weight"), &[out, input]), None)
    }

    /// `{name}.weight`, `[out, input]`, and `{name}.bias`.
    pub(crate) fn biased(name: &str, (out, input): (usize, usize)) -> Self {
        let bias = Source::whole(format!("{name}.bias"), &[out]);
        Self { bias: vec![bias], ..Self::unbiased(name, (out, input)) }
    }

    /// One matrix, and its bias where there is one.
    pub(crate) fn of(weight: Source, bias: Option<Source>) -> Self {
        let (out, input) = (weight.rows, weight.columns());
        Self { weight: vec![weight], bias: bias.into_iter().collect(), scale: None, out, input }
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.weight.iter().chain(&self.bias).chain(&self.scale)
    }
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over each row.
#[derive(Debug, Clone, PartialEq)]
pub struct NormParts {
    /// `[width]`.
    pub weight: Source,
    /// `[width]`.
    pub bias: Source,
    /// Width of a row.
    pub width: usize,
    /// Added to the variance.
    pub eps: f64,
}

impl NormParts {
    /// `{name}.weight` and `{name}.bias`.
    pub(crate) fn named(name: &str, width: usize, eps: f64) -> Self {
        let part = |part: &str| Source::whole(format!("{name}.{part}"), &[width]);
        Self { weight: part("weight"), bias: part("bias"), width, eps }
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        [&self.weight, &self.bias].into_iter()
    }
}

/// A transformer block; the spec says where it normalises.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockParts {
    /// The norm of attention.
    pub norm1: NormParts,
    /// Queries, keys and values, `[3 hidden, hidden]`.
    pub qkv: LinearParts,
    /// Back to the residual stream.
    pub out: LinearParts,
    /// The norm of the feed-forward layer.
    pub norm2: NormParts,
    /// `[inner, hidden]`.
    pub fc1: LinearParts,
    /// `[hidden, inner]`.
    pub fc2: LinearParts,
}

impl BlockParts {
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let linears = [&self.qkv, &self.out, &self.fc1, &self.fc2].into_iter().flat_map(LinearParts::sources);
        self.norm1.sources().chain(self.norm2.sources()).chain(linears)
    }
}

/// Layers from a pooled state to the shared space, each with the activation after it.
pub type HeadParts = Vec<(LinearParts, Option<Activation>)>;

/// A vision transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct VitParts {
    /// Sizes and options.
    pub spec: VitSpec,
    /// Patches to rows, `[hidden, 3 * patch height * patch width]`, columns in the order channel, row,
    /// column.
    pub patch: LinearParts,
    /// The class token, `[hidden]` in all.
    pub class: Option<Source>,
    /// `[positions, hidden]` in all (some files store it with a leading dimension of one), the class
    /// token's first where `class_has_position`.
    pub positions: Source,
    /// Whether the class token has a position of its own.
    pub class_has_position: bool,
    /// Before the blocks.
    pub pre_norm: Option<NormParts>,
    /// The blocks, first to last.
    pub blocks: Vec<BlockParts>,
    /// After the blocks, before or after pooling as the spec says.
    pub post_norm: Option<NormParts>,
    /// With [`VitPooling::Attention`].
    pub pool: Option<PoolParts>,
    /// To the shared space.
    pub head: HeadParts,
}

impl VitParts {
    /// Dimensions of the output.
    pub fn out(&self) -> usize {
        head_out(&self.head, self.spec.transformer.hidden)
    }

    /// Every tensor that is named; one that is shared comes once for each use.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let norms = self.pre_norm.iter().chain(&self.post_norm).flat_map(NormParts::sources);
        let pool = self.pool.iter().flat_map(PoolParts::sources);
        let head = self.head.iter().flat_map(|(layer, _)| layer.sources());
        let blocks = self.blocks.iter().flat_map(BlockParts::sources);
        let rows = self.class.iter().chain([&self.positions]);
        self.patch.sources().chain(rows).chain(norms).chain(blocks).chain(pool).chain(head)
    }
}

/// Multi-head attention of one learnt query over all positions, then a residual feed-forward layer:
/// `a = out(attention)`, `a + fc2(activation(fc1(norm(a))))`.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolParts {
    /// The learnt query before its projection, `[hidden]` in all.
    pub probe: Source,
    /// Maps the probe to the query.
    pub query: LinearParts,
    /// Keys and values, `[2 hidden, hidden]`.
    pub key_value: LinearParts,
    /// After attention.
    pub out: LinearParts,
    /// Before the feed-forward layer.
    pub norm: NormParts,
    /// `[inner, hidden]`.
    pub fc1: LinearParts,
    /// `[hidden, inner]`.
    pub fc2: LinearParts,
}

impl PoolParts {
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let linears = [&self.query, &self.key_value, &self.out, &self.fc1, &self.fc2];
        let linears = linears.into_iter().flat_map(LinearParts::sources);
        [&self.probe].into_iter().chain(self.norm.sources()).chain(linears)
    }
}

/// A text transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct TextParts {
    /// Sizes and options.
    pub spec: TextSpec,
    /// `[vocab, hidden]`.
    pub tokens: Source,
    /// `[context, hidden]`; its first row is the first position of a text.
    pub positions: Source,
    /// The row that every token gets added (BERT's first token type), `[1, hidden]`.
    pub token_type: Option<Source>,
    /// Before the blocks.
    pub embedding_norm: Option<NormParts>,
    /// The blocks, first to last.
    pub blocks: Vec<BlockParts>,
    /// After the blocks, over the pooled state.
    pub final_norm: Option<NormParts>,
    /// To the shared space.
    pub head: HeadParts,
}

impl TextParts {
    /// Dimensions of the output.
    pub fn out(&self) -> usize {
        head_out(&self.head, self.spec.transformer.hidden)
    }

    /// Every tensor that is named.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let norms = self.embedding_norm.iter().chain(&self.final_norm).flat_map(NormParts::sources);
        let head = self.head.iter().flat_map(|(layer, _)| layer.sources());
        let blocks = self.blocks.iter().flat_map(BlockParts::sources);
        let rows = [&self.tokens, &self.positions].into_iter().chain(&self.token_type);
        rows.chain(norms).chain(blocks).chain(head)
    }
}

fn head_out(head: &HeadParts, hidden: usize) -> usize {
    head.last().map_or(hidden, |(layer, _)| layer.out)
}

/// An image tower.
#[derive(Debug, Clone, PartialEq)]
pub enum VisionParts {
    /// A vision transformer.
    Vit(Box<VitParts>),
    /// A network of convolutions, by its name: it runs, and its features can be trained on, but it has
    /// no parts that could be given gradients.
    Convolutional(String),
}

/// Both towers of a dual encoder and the scalars beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Anatomy {
    /// The image tower.
    pub vision: VisionParts,
    /// The text tower.
    pub text: TextParts,
    /// The natural logarithm of what cosines are multiplied by.
    pub logit_scale: Source,
    /// Added to the scaled cosines, in the families that have it.
    pub logit_bias: Option<Source>,
}

impl Anatomy {
    /// Every tensor that is named, in both towers and beside them; one that is shared comes once for
    /// each use.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let vision = match &self.vision {
            VisionParts::Vit(parts) => Some(parts.sources()),
            VisionParts::Convolutional(_) => None,
        };
        let scalars = [&self.logit_scale].into_iter().chain(&self.logit_bias);
        vision.into_iter().flatten().chain(self.text.sources()).chain(scalars)
    }
}
