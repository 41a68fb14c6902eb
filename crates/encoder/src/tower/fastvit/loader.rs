//! Reads a FastViT from a checkpoint.
//!
//! Owns: what the published model names stand for, the names of their tensors in training form and with
//! the branches already summed ("reparameterised"), and folding all that is linear into convolutions.
//! Widths, depths and the form come from the tensors. Does not own the forward pass.

use super::super::convolution::{BatchNorm, Depthwise, Excite, Kernel};
use super::super::layers::{LayerNorm, Linear};
use super::{Block, Downsample, FastVit, FastVitSpec, HEAD_WIDTH, Mixer, Stage};
use crate::anatomy::{LinearParts, NormParts};
use crate::error::LoadError;
use crate::precision::Precision;
use crate::weights::Weights;

const LAYER_NORM_EPS: f64 = 1e-5;

/// What a model name of timm stands for.
#[derive(Debug)]
struct Named {
    name: &'static str,
    /// Blocks per stage, where the first stage has the published width.
    layers: &'static [usize],
    width: usize,
    /// The first stage that mixes by attention and has positions; those before it mix by convolution.
    attention_from: usize,
    /// The first stage whose downsampling has squeeze-and-excitation.
    excite_from: usize,
    /// Layer norm before attention instead of batch norm, and a stem without one-pixel branches.
    second_generation: bool,
}

const fn first(name: &'static str, layers: &'static [usize], width: usize) -> Named {
    Named { name, layers, width, attention_from: 3, excite_from: 2, second_generation: false }
}

const fn second(name: &'static str, layers: &'static [usize], width: usize) -> Named {
    Named { name, layers, width, attention_from: 3, excite_from: usize::MAX, second_generation: true }
}

const MODELS: [Named; 5] = [
    first("fastvit_mci0", &[2, 6, 10, 2], 64),
    first("fastvit_mci1", &[4, 12, 20, 4], 64),
    first("fastvit_mci2", &[4, 12, 24, 4], 80),
    second("fastvit_mci3", &[2, 12, 24, 4, 2], 96),
    second("fastvit_mci4", &[2, 12, 24, 4, 4], 128),
];

/// Whether timm's name is one that [`FastVit::load`] knows.
pub(crate) fn is_fastvit(model: &str) -> bool {
    named(model).is_some()
}

fn named(model: &str) -> Option<&'static Named> {
    // A name may carry the name of its weights after a dot.
    let model = model.split('.').next().unwrap_or(model);
    MODELS.iter().find(|named| named.name == model)
}

impl FastVit {
    /// Takes the tower's tensors from below `prefix` (`visual.trunk.`): the named model, for images of
    /// `image` (height, width), into `out` dimensions. Widths, depths and the form come from the tensors.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor; [`LoadError::MissingTensor`] also where whole blocks of a
    /// published size are gone.
    ///
    /// # Panics
    /// If [`is_fastvit`] does not hold for the name.
    pub(crate) fn load(
        weights: &Weights,
        prefix: &str,
        model: &str,
        image: (usize, usize),
        out: usize,
    ) -> Result<Self, LoadError> {
        let named = named(model).expect("the caller asked whether the name is known");
        let loader = Loader { weights, prefix, named };
        let reparameterized = weights.has(&loader.name("stem.2.reparam_conv.weight"));
        let first = loader.outputs(match reparameterized {
            true => "stem.0.reparam_conv.weight",
            false => "stem.0.conv_kxk.0.conv.weight",
        })?;
        let mut stages = Vec::new();
        let (mut widths, mut layers) = (Vec::new(), Vec::new());
        let mut width = first;
        for i in 0..named.layers.len() {
            let (stage, next) = loader.stage(i, width)?;
            width = next;
            widths.push(width);
            layers.push(stage.blocks.len());
            stages.push(stage);
        }
        let stem_scale = !named.second_generation;
        let last = loader.branches("final_conv.", (2 * width, 1, 3), true, false)?;
        Ok(Self {
            stem_in: loader.branches("stem.0.", (first, 3, 3), stem_scale, false)?.into_linear(),
            stem_spatial: loader
                .branches("stem.1.", (first, 1, 3), stem_scale, false)?
                .into_depthwise(2, first),
            stem_out: loader.branches("stem.2.", (first, first, 1), false, true)?.into_linear(),
            stages,
            last: last.into_depthwise(1, width),
            last_excite: Excite::load(weights, &loader.name("final_conv.se"), 2 * width)?,
            head: Linear::assemble(
                weights,
                &LinearParts::biased(&loader.name("head.fc"), (out, 2 * width)),
                Precision::F32,
            )?,
            spec: FastVitSpec { model: named.name, image, widths, layers, reparameterized },
        })
    }
}

/// Reads the parts of one tower.
struct Loader<'a> {
    weights: &'a Weights,
    prefix: &'a str,
    named: &'static Named,
}

impl Loader<'_> {
    fn name(&self, part: &str) -> String {
        format!("{}{part}", self.prefix)
    }

    /// The first dimension of a tensor.
    fn outputs(&self, part: &str) -> Result<usize, LoadError> {
        let name = self.name(part);
        match self.weights.shape(&name)? {
            &[out, ..] if out > 0 => Ok(out),
            found => {
                let found = found.to_vec();
                Err(LoadError::TensorShape { name, expected: vec![1, 1, 1, 1], found })
            }
        }
    }

    /// A convolution in either form: summed already, or convolutions with batch norms side by side,
    /// optionally with one of one pixel (`scale`) and a batch norm alone (`skip`).
    fn branches(
        &self,
        part: &str,
        shape @ (out, input, _): (usize, usize, usize),
        scale: bool,
        skip: bool,
    ) -> Result<Kernel, LoadError> {
        let name = |branch: &str| self.name(&format!("{part}{branch}"));
        if self.weights.has(&name("reparam_conv.weight")) {
            return Kernel::load(self.weights, &name("reparam_conv"), shape);
        }
        let mut kernel = Kernel::load_normed(self.weights, &name("conv_kxk.0"), shape)?;
        if scale {
            kernel.add(&Kernel::load_normed(self.weights, &name("conv_scale"), (out, input, 1))?, 1.0);
        }
        if skip {
            kernel.add(&self.norm_alone(&name("identity"), shape)?, 1.0);
        }
        Ok(kernel)
    }

    /// A batch norm as a convolution.
    fn norm_alone(&self, name: &str, (out, input, _): (usize, usize, usize)) -> Result<Kernel, LoadError> {
        Ok(Kernel::identity((out, input, 1)).normed(&BatchNorm::load(self.weights, name, out)?))
    }

    /// A stage, and its width.
    fn stage(&self, i: usize, input: usize) -> Result<(Stage, usize), LoadError> {
        let part = |rest: &str| format!("stages.{i}.{rest}");
        let width = match i {
            0 => input,
            _ => self
                .outputs(&part("downsample.proj.1.reparam_conv.weight"))
                .or_else(|_| self.outputs(&part("downsample.proj.1.conv_kxk.0.conv.weight")))?,
        };
        let attention = i >= self.named.attention_from;
        let has = |j: usize| self.weights.has(&self.name(&part(&format!("blocks.{j}.mlp.fc1.weight"))));
        let found = (0..).take_while(|j| has(*j)).count();
        // A published width comes with its published depth; fewer blocks are a damaged file.
        let published = self.named.width << i == width;
        let layers = if published { self.named.layers[i] } else { found.max(1) };
        let blocks = (0..layers).map(|j| self.block(&part(&format!("blocks.{j}.")), width, attention));
        let stage = Stage {
            downsample: if i == 0 { None } else { Some(self.downsample(i, (input, width))?) },
            position: if attention { Some(self.position(&part("pos_emb."), width)?) } else { None },
            blocks: blocks.collect::<Result<_, _>>()?,
        };
        Ok((stage, width))
    }

    fn downsample(&self, i: usize, (input, width): (usize, usize)) -> Result<Downsample, LoadError> {
        let part = |rest: &str| format!("stages.{i}.downsample.proj.{rest}");
        let name = |rest: &str| self.name(&part(rest));
        let spatial = if self.weights.has(&name("0.reparam_conv.weight")) {
            Kernel::load(self.weights, &name("0.reparam_conv"), (width, 1, 7))?
        } else {
            let mut large = Kernel::load_normed(self.weights, &name("0.large_conv"), (width, 1, 7))?;
            large.add(&Kernel::load_normed(self.weights, &name("0.small_conv"), (width, 1, 3))?, 1.0);
            large
        };
        if !width.is_multiple_of(input) {
            let found = vec![width, 1, 7, 7];
            return Err(LoadError::TensorShape {
                name: part("0"),
                expected: vec![2 * input, 1, 7, 7],
                found,
            });
        }
        let excite = match i >= self.named.excite_from {
            true => Some(Excite::load(self.weights, &name("0.se"), width)?),
            false => None,
        };
        let mix = self.branches(&part("1."), (width, width, 1), false, true)?.into_linear();
        Ok(Downsample { spatial: spatial.into_depthwise(2, input), excite, mix })
    }

    fn position(&self, part: &str, width: usize) -> Result<Depthwise, LoadError> {
        let shape = (width, 1, 7);
        let summed = self.name(&format!("{part}reparam_conv"));
        if self.weights.has(&format!("{summed}.weight")) {
            return Ok(Kernel::load(self.weights, &summed, shape)?.into_depthwise(1, width));
        }
        let mut kernel = Kernel::load(self.weights, &self.name(&format!("{part}pos_enc")), shape)?;
        kernel.add(&Kernel::identity((width, 1, 1)), 1.0);
        Ok(kernel.into_depthwise(1, width))
    }

    fn block(&self, part: &str, width: usize, attention: bool) -> Result<Block, LoadError> {
        let name = |rest: &str| self.name(&format!("{part}{rest}"));
        let inner = self.outputs(&format!("{part}mlp.fc1.weight"))?;
        let (mixer, scale) = match attention {
            true => (self.attention(part, width)?, "layer_scale_2.gamma"),
            false => (Mixer::Convolution(self.convolution(part, width)?), "layer_scale.gamma"),
        };
        let mut fc2 = Kernel::load(self.weights, &name("mlp.fc2"), (width, inner, 1))?;
        fc2.scale(&self.gamma(&name(scale), width)?);
        Ok(Block {
            mixer,
            spatial: Kernel::load_normed(self.weights, &name("mlp.conv"), (width, 1, 7))?
                .into_depthwise(1, width),
            fc1: Kernel::load(self.weights, &name("mlp.fc1"), (inner, width, 1))?.into_linear(),
            fc2: fc2.into_linear(),
        })
    }

    /// `x + gamma (mixer(x) - norm(x))` as one convolution.
    fn convolution(&self, part: &str, width: usize) -> Result<Depthwise, LoadError> {
        let shape = (width, 1, 3);
        let name = |rest: &str| self.name(&format!("{part}token_mixer.{rest}"));
        if self.weights.has(&name("reparam_conv.weight")) {
            return Ok(Kernel::load(self.weights, &name("reparam_conv"), shape)?.into_depthwise(1, width));
        }
        let mut kernel = self.branches(&format!("{part}token_mixer.mixer."), shape, true, true)?;
        kernel.add(&self.norm_alone(&name("norm.identity"), shape)?, -1.0);
        kernel.scale(&self.gamma(&name("layer_scale.gamma"), width)?);
        kernel.add(&Kernel::identity((width, 1, 1)), 1.0);
        Ok(kernel.into_depthwise(1, width))
    }

    fn attention(&self, part: &str, width: usize) -> Result<Mixer, LoadError> {
        let name = |rest: &str| self.name(&format!("{part}{rest}"));
        let qkv = self.weights.take(&name("token_mixer.qkv.weight"), &[3 * width, width])?;
        if !width.is_multiple_of(HEAD_WIDTH) {
            let (name, found) = (name("token_mixer.qkv.weight"), vec![3 * width, width]);
            return Err(LoadError::TensorShape { name, expected: vec![3 * HEAD_WIDTH, HEAD_WIDTH], found });
        }
        let (norm, qkv) = match self.named.second_generation {
            true => {
                let norm = NormParts::named(&name("norm"), width, LAYER_NORM_EPS);
                let norm = LayerNorm::assemble(self.weights, &norm)?;
                (Some(norm), Linear::new(&qkv, 3 * width, width, None))
            }
            false => (None, after_norm(&qkv, &BatchNorm::load(self.weights, &name("norm"), width)?)),
        };
        let gamma = self.gamma(&name("layer_scale_1.gamma"), width)?;
        let out = self.weights.take(&name("token_mixer.proj.weight"), &[width, width])?;
        let bias = self.weights.take(&name("token_mixer.proj.bias"), &[width])?;
        let scaled = |v: &f32, gamma: &f64| (f64::from(*v) * gamma) as f32;
        let out: Vec<f32> = out
            .chunks_exact(width)
            .zip(&gamma)
            .flat_map(|(row, g)| row.iter().map(move |w| scaled(w, g)))
            .collect();
        let bias: Vec<f32> = bias.iter().zip(&gamma).map(|(b, g)| scaled(b, g)).collect();
        Ok(Mixer::Attention { norm, qkv, out: Linear::new(&out, width, width, Some(&bias)) })
    }

    fn gamma(&self, name: &str, width: usize) -> Result<Vec<f64>, LoadError> {
        Ok(self.weights.take(name, &[width, 1, 1])?.iter().map(|v| f64::from(*v)).collect())
    }
}

/// A linear layer without bias after a batch norm, as one layer.
fn after_norm(weight: &[f32], norm: &BatchNorm) -> Linear {
    let width = norm.scale.len();
    let mut bias = Vec::with_capacity(weight.len() / width);
    let mut folded = Vec::with_capacity(weight.len());
    for row in weight.chunks_exact(width) {
        bias.push(row.iter().zip(&norm.shift).map(|(w, shift)| f64::from(*w) * shift).sum::<f64>() as f32);
        folded.extend(row.iter().zip(&norm.scale).map(|(w, scale)| (f64::from(*w) * scale) as f32));
    }
    Linear::new(&folded, bias.len(), width, Some(&bias))
}
