//! Output sizes and crop windows of the preprocessing rules.
//!
//! Owns: how an image's size becomes the resized size, and where the centre crop lies, with the
//! rounding of each reference library. Does not own pixels or settings files.

use std::ops::Range;

/// The size an image is scaled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resize {
    /// The shorter side to this many pixels, keeping the aspect; the longer side is truncated.
    ShortestEdge(usize),
    /// Height and width, whatever the aspect.
    Exact(usize, usize),
    /// Keeping the aspect, the smallest size that covers height and width; rounded.
    Cover(usize, usize),
    /// Keeping the aspect, the largest size within height and width; rounded.
    Contain(usize, usize),
}

impl Resize {
    /// Height and width of an image of `(height, width)` after resizing, at least 1. Where the
    /// reference libraries fail because a side rounds to nothing, one pixel remains.
    pub(crate) fn output(self, (height, width): (u64, u64)) -> (u64, u64) {
        let scaled = |ratio: f64| {
            let side = |v: u64| ((v as f64 / ratio).round_ties_even() as u64).max(1);
            (side(height), side(width))
        };
        let ratios = |h: usize, w: usize| (height as f64 / h as f64, width as f64 / w as f64);
        match self {
            Self::Exact(h, w) => (h as u64, w as u64),
            Self::ShortestEdge(edge) if width <= height => (edge as u64 * height / width, edge as u64),
            Self::ShortestEdge(edge) => (edge as u64, edge as u64 * width / height),
            Self::Cover(h, w) => {
                let (y, x) = ratios(h, w);
                scaled(y.min(x))
            }
            Self::Contain(h, w) => {
                let (y, x) = ratios(h, w);
                scaled(y.max(x))
            }
        }
    }
}

/// Where a centre crop begins when the margins are uneven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CropRounding {
    /// transformers: `(size - crop) // 2`, also when the image is smaller than the crop.
    Floor,
    /// torchvision: `round((size - crop) / 2)` with ties to even; a smaller image is padded by
    /// `(crop - size) // 2` before it.
    TiesToEven,
}

/// A centre crop along one side, in coordinates of the resized image.
pub(crate) struct Window {
    /// The part of it that exists.
    pub(crate) source: Range<u64>,
    /// Padding before that part.
    pub(crate) margin: usize,
}

impl Window {
    pub(crate) fn new(resized: u64, crop: usize, rounding: CropRounding) -> Self {
        let spare = resized as i64 - crop as i64;
        let start = match rounding {
            CropRounding::Floor => spare.div_euclid(2),
            CropRounding::TiesToEven if spare < 0 => spare / 2,
            CropRounding::TiesToEven => (spare as f64 / 2.0).round_ties_even() as i64,
        };
        let from = start.max(0) as u64;
        let to = resized.min((start + crop as i64).max(0) as u64);
        Self { source: from..to, margin: (-start).max(0) as usize }
    }

    pub(crate) fn len(&self) -> usize {
        (self.source.end - self.source.start) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_as_the_libraries_do() {
        assert_eq!(Resize::ShortestEdge(224).output((333, 500)), (224, 336));
        assert_eq!(Resize::ShortestEdge(224).output((500, 333)), (336, 224));
        // 17 * 64 / 31 is 35.1; 64 * 31 / 17 is 116.7.
        assert_eq!(Resize::Contain(64, 64).output((31, 17)), (64, 35));
        assert_eq!(Resize::Cover(64, 64).output((31, 17)), (117, 64));
        // Exactly half: 4.5 goes to 4, 7.5 to 8.
        assert_eq!(Resize::Contain(10, 10).output((20, 9)), (10, 4));
        assert_eq!(Resize::Contain(10, 10).output((20, 15)), (10, 8));
        assert_eq!(Resize::Cover(32, 64).output((100, 100)), (64, 64));
        assert_eq!(Resize::Contain(64, 64).output((1, 1000)), (1, 64));
    }

    #[test]
    fn crops_begin_where_the_libraries_begin_them() {
        let at = |resized, crop, rounding| {
            let window = Window::new(resized, crop, rounding);
            (window.source.start, window.source.end, window.margin)
        };
        use CropRounding::{Floor, TiesToEven};
        assert_eq!((at(67, 64, Floor), at(67, 64, TiesToEven)), ((1, 65, 0), (2, 66, 0)));
        assert_eq!((at(65, 64, Floor), at(65, 64, TiesToEven)), ((0, 64, 0), (0, 64, 0)));
        assert_eq!((at(3, 8, Floor), at(3, 8, TiesToEven)), ((0, 3, 3), (0, 3, 2)));
        assert_eq!(Window::new(100, 64, Floor).len(), 64);
    }
}
