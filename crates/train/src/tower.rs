//! The towers that the encoder runs, with gradients.
//!
//! Owns: image and text transformers over a [`crate::tape`], built from the parts that the encoder
//! describes, whichever family they are of, and which of their parameters are trained. Deliberately
//! absent: names and sizes of families (see `diptych_encoder::anatomy`), unit length, losses, and
//! threads: a caller runs one tape per chunk of samples.

mod blocks;
mod image;
mod spans;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use image::ImageTower;
pub(crate) use text::TextTower;

/// Which parameters of a tower are trained; the others stay as they were read, and nothing is computed
/// for them on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    /// None.
    None,
    /// Those of the last blocks, this many, and all behind them: final norm, pooling and head.
    Last(usize),
    /// All.
    All,
}

impl Open {
    fn embeddings(self) -> bool {
        self == Self::All
    }

    fn block(self, at: usize, layers: usize) -> bool {
        match self {
            Self::None => false,
            Self::Last(n) => at + n >= layers,
            Self::All => true,
        }
    }

    fn head(self) -> bool {
        self != Self::None
    }
}
