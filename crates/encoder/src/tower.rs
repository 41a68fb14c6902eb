//! The two transformers of a CLIP model, forward only.
//!
//! Owns: the arithmetic from token ids or pixels to a row of the shared space, as in
//! `modeling_clip.py` of the transformers library. Does not own tokenising, preprocessing, batching
//! policy or normalisation of the result.
//!
//! Every activation is a contiguous `[batch * positions, width]` matrix, so that each linear layer is
//! one matrix product. The last block finishes only the pooled position of each sequence.

use candle_core::{D, Device, Result, Tensor};

use crate::config::{Activation, ClipConfig, TextConfig, VisionConfig};
use crate::error::LoadError;
use crate::ops::{Bias, Residual, Softmax, layer_norm};
use crate::weights::Weights;

/// Reads tensors below one name prefix.
struct Reader<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl<'a> Reader<'a> {
    fn new(weights: &'a Weights, prefix: impl Into<String>) -> Self {
        Self { weights, prefix: prefix.into() }
    }

    fn tensor(
        &self,
        name: &str,
        shape: impl Into<candle_core::Shape>,
    ) -> std::result::Result<Tensor, LoadError> {
        let values = self.weights.values(&format!("{}{name}", self.prefix))?;
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    fn load(r: &Reader<'_>, name: &str, width: usize, eps: f64) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            weight: r.tensor(&format!("{name}.weight"), width)?,
            bias: r.tensor(&format!("{name}.bias"), width)?,
            eps: eps as f32,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// `[out, in]` weight and `[out]` bias.
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn load(r: &Reader<'_>, name: &str, input: usize, out: usize) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            weight: r.tensor(&format!("{name}.weight"), (out, input))?,
            bias: r.tensor(&format!("{name}.bias"), out)?,
        })
    }

    fn forward(&self, x: &Tensor, activation: Option<Activation>) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        y.inplace_op2(&self.bias, &Bias(activation))?;
        Ok(y)
    }

    /// Adds `x * weight^T + bias` to the residual stream in place.
    fn add_to(&self, residual: &Tensor, x: &Tensor) -> Result<()> {
        residual.inplace_op3(&x.matmul(&self.weight.t()?)?, &self.bias, &Residual)
    }
}

/// One pre-norm transformer block.
struct Block {
    norm1: LayerNorm,
    /// Queries, keys and values in one product; queries already scaled by `head_dim^-1/2`.
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// The sizes that a tower's blocks share.
#[derive(Clone, Copy)]
struct Shape {
    hidden: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    activation: Activation,
    eps: f64,
    causal: bool,
}

impl Block {
    fn load(r: &Reader<'_>, shape: Shape) -> std::result::Result<Self, LoadError> {
        let (hidden, eps) = (shape.hidden, shape.eps);
        let scale = ((hidden / shape.heads) as f64).powf(-0.5);
        let part = |name: &str| Linear::load(r, &format!("self_attn.{name}"), hidden, hidden);
        let (q, k, v) = (part("q_proj")?, part("k_proj")?, part("v_proj")?);
        let qkv = Linear {
            weight: Tensor::cat(&[&(&q.weight * scale)?, &k.weight, &v.weight], 0)?,
            bias: Tensor::cat(&[&(&q.bias * scale)?, &k.bias, &v.bias], 0)?,
        };
        Ok(Self {
            norm1: LayerNorm::load(r, "layer_norm1", hidden, eps)?,
            qkv,
            out: part("out_proj")?,
            norm2: LayerNorm::load(r, "layer_norm2", hidden, eps)?,
            fc1: Linear::load(r, "mlp.fc1", hidden, shape.inner)?,
            fc2: Linear::load(r, "mlp.fc2", shape.inner, hidden)?,
        })
    }

    /// Updates the residual stream `x` of `batch` sequences; with `pooled`, returns only those rows.
    fn forward(&self, x: Tensor, batch: usize, shape: Shape, pooled: Option<&Tensor>) -> Result<Tensor> {
        let attended = self.attend(&self.norm1.forward(&x)?, batch, shape)?;
        let (x, attended) = match pooled {
            Some(rows) => (x.index_select(rows, 0)?, attended.index_select(rows, 0)?),
            None => (x, attended),
        };
        self.out.add_to(&x, &attended)?;
        let inner = self.fc1.forward(&self.norm2.forward(&x)?, Some(shape.activation))?;
        self.fc2.add_to(&x, &inner)?;
        Ok(x)
    }

    fn attend(&self, x: &Tensor, batch: usize, shape: Shape) -> Result<Tensor> {
        let Shape { hidden, heads, causal, .. } = shape;
        let (rows, width) = (x.dim(0)?, hidden / heads);
        let positions = rows / batch;
        let qkv = self.qkv.forward(x, None)?.reshape((batch, positions, 3, heads, width))?;
        // [3, batch, heads, positions, width], so that each head is one contiguous matrix.
        let qkv = qkv.permute((2, 0, 3, 1, 4))?.contiguous()?;
        let part = |i| qkv.get(i)?.reshape((batch * heads, positions, width));
        let scores = part(0)?.matmul(&part(1)?.transpose(D::Minus1, D::Minus2)?)?;
        scores.inplace_op1(&Softmax { causal })?;
        let mixed = scores.matmul(&part(2)?)?;
        mixed
            .reshape((batch, heads, positions, width))?
            .transpose(1, 2)?
            .contiguous()?
            .reshape((rows, hidden))
    }
}

/// All blocks of a tower.
struct Blocks {
    blocks: Vec<Block>,
    shape: Shape,
}

impl Blocks {
    fn load(weights: &Weights, tower: &str, shape: Shape) -> std::result::Result<Self, LoadError> {
        let blocks = (0..shape.layers)
            .map(|i| Block::load(&Reader::new(weights, format!("{tower}.encoder.layers.{i}.")), shape))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self { blocks, shape })
    }

    /// The final state of one row per sequence, `[batch, hidden]`.
    fn forward(&self, mut x: Tensor, batch: usize, pooled: &[u32]) -> Result<Tensor> {
        let pooled = Tensor::from_slice(pooled, pooled.len(), &Device::Cpu)?;
        let last = self.blocks.len() - 1;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, batch, self.shape, (i == last).then_some(&pooled))?;
        }
        Ok(x)
    }
}

/// Token ids to the shared space.
pub(crate) struct TextTower {
    token_embedding: Tensor,
    position_embedding: Tensor,
    blocks: Blocks,
    final_norm: LayerNorm,
    projection: Tensor,
}

impl TextTower {
    pub(crate) fn load(weights: &Weights, config: &ClipConfig) -> std::result::Result<Self, LoadError> {
        let TextConfig { hidden_size, vocab_size, max_position_embeddings, .. } = config.text;
        let shape = Shape {
            hidden: hidden_size,
            inner: config.text.intermediate_size,
            layers: config.text.num_hidden_layers,
            heads: config.text.num_attention_heads,
            activation: config.text.hidden_act,
            eps: config.text.layer_norm_eps,
            causal: true,
        };
        let r = Reader::new(weights, "text_model.");
        Ok(Self {
            token_embedding: r.tensor("embeddings.token_embedding.weight", (vocab_size, hidden_size))?,
            position_embedding: r
                .tensor("embeddings.position_embedding.weight", (max_position_embeddings, hidden_size))?,
            blocks: Blocks::load(weights, "text_model", shape)?,
            final_norm: LayerNorm::load(&r, "final_layer_norm", hidden_size, shape.eps)?,
            projection: Reader::new(weights, "")
                .tensor("text_projection.weight", (config.projection_dim, hidden_size))?,
        })
    }

    /// Projected, not normalised: `[texts, projection_dim]`. Each sequence ends at the position to be
    /// pooled: under the causal mask nothing after it can matter, so that shorter sequences may be
    /// padded with anything.
    pub(crate) fn forward(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        let batch = sequences.len();
        let longest = sequences.iter().map(|s| s.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(batch * longest);
        let mut pooled = Vec::with_capacity(batch);
        for sequence in sequences {
            pooled.push((ids.len() + sequence.len() - 1) as u32);
            ids.extend_from_slice(sequence);
            ids.resize(pooled.len() * longest, 0);
        }
        let ids = Tensor::from_vec(ids, batch * longest, &Device::Cpu)?;
        let x = self.token_embedding.index_select(&ids, 0)?.reshape((batch, longest, ()))?;
        let x = x.broadcast_add(&self.position_embedding.narrow(0, 0, longest)?)?;
        let x = x.reshape((batch * longest, self.blocks.shape.hidden))?;
        let x = self.final_norm.forward(&self.blocks.forward(x, batch, &pooled)?)?;
        x.matmul(&self.projection.t()?)
    }
}

/// Pixels to the shared space.
pub(crate) struct VisionTower {
    /// `[hidden, channels * patch * patch]`.
    patch_embedding: Tensor,
    /// Class embedding with its position added, `[1, 1, hidden]`.
    class_row: Tensor,
    /// Positions of the patches, `[patches, hidden]`.
    patch_positions: Tensor,
    pre_norm: LayerNorm,
    blocks: Blocks,
    post_norm: LayerNorm,
    projection: Tensor,
    config: VisionConfig,
}

impl VisionTower {
    pub(crate) fn load(weights: &Weights, config: &ClipConfig) -> std::result::Result<Self, LoadError> {
        let vision = &config.vision;
        let hidden = vision.hidden_size;
        let shape = Shape {
            hidden,
            inner: vision.intermediate_size,
            layers: vision.num_hidden_layers,
            heads: vision.num_attention_heads,
            activation: vision.hidden_act,
            eps: vision.layer_norm_eps,
            causal: false,
        };
        let r = Reader::new(weights, "vision_model.");
        let patch = vision.num_channels * vision.patch_size * vision.patch_size;
        let positions = r.tensor("embeddings.position_embedding.weight", (vision.num_positions(), hidden))?;
        let class = r.tensor("embeddings.class_embedding", (1, hidden))?;
        Ok(Self {
            patch_embedding: r.tensor("embeddings.patch_embedding.weight", (hidden, patch))?,
            class_row: (class + positions.narrow(0, 0, 1)?)?.unsqueeze(0)?,
            patch_positions: positions.narrow(0, 1, vision.num_positions() - 1)?.contiguous()?,
            pre_norm: LayerNorm::load(&r, "pre_layrnorm", hidden, shape.eps)?,
            blocks: Blocks::load(weights, "vision_model", shape)?,
            post_norm: LayerNorm::load(&r, "post_layernorm", hidden, shape.eps)?,
            projection: Reader::new(weights, "")
                .tensor("visual_projection.weight", (config.projection_dim, hidden))?,
            config: vision.clone(),
        })
    }

    /// Projected, not normalised: `[images, projection_dim]`. Each image is `[3, side, side]`.
    pub(crate) fn forward(&self, images: &[&[f32]]) -> Result<Tensor> {
        let (batch, hidden, positions) = (images.len(), self.config.hidden_size, self.config.num_positions());
        let x = self.patches(images)?.matmul(&self.patch_embedding.t()?)?;
        let x = x.reshape((batch, positions - 1, hidden))?.broadcast_add(&self.patch_positions)?;
        let x = Tensor::cat(&[&self.class_row.expand((batch, 1, hidden))?, &x], 1)?;
        let x = self.pre_norm.forward(&x.reshape((batch * positions, hidden))?)?;
        let class_rows: Vec<u32> = (0..batch).map(|i| (i * positions) as u32).collect();
        let x = self.post_norm.forward(&self.blocks.forward(x, batch, &class_rows)?)?;
        x.matmul(&self.projection.t()?)
    }

    /// Each patch as one row in the order of the convolution's kernel: channel, row, column. A
    /// convolution whose stride is its kernel is then a single matrix product.
    fn patches(&self, images: &[&[f32]]) -> Result<Tensor> {
        let VisionConfig { image_size: side, patch_size: patch, .. } = self.config;
        let grid = self.config.patches_per_side();
        let width = 3 * patch * patch;
        let mut rows = Vec::with_capacity(images.len() * grid * grid * width);
        for image in images {
            for (top, left) in (0..grid * grid).map(|i| (i / grid * patch, i % grid * patch)) {
                for (c, y) in (0..3 * patch).map(|i| (i / patch, i % patch)) {
                    let at = (c * side + top + y) * side + left;
                    rows.extend_from_slice(&image[at..at + patch]);
                }
            }
        }
        Tensor::from_vec(rows, (images.len() * grid * grid, width), &Device::Cpu)
    }
}
