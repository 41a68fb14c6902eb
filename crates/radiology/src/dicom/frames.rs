//! Which frames of a multi-frame image stand for it.

/// Which frames of an image are taken. The default is [`FramePolicy::Middle`]: one picture for an image, and
/// of a stack or a loop the middle shows what it is about more often than its first frame does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FramePolicy {
    /// The first frame.
    First,
    /// The one in the middle; of two in the middle the later.
    #[default]
    Middle,
    /// All of them, but at most so many, then spread evenly.
    All {
        /// Frames at most.
        max: u32,
    },
    /// The first, and after it every one of so many.
    Every(u32),
}

impl FramePolicy {
    /// The frames that are taken of `count`, counted from 0, in rising order.
    pub fn frames(self, count: u32) -> Vec<u32> {
        match self {
            _ if count == 0 => Vec::new(),
            Self::First => vec![0],
            Self::Middle => vec![count / 2],
            Self::All { max } if max >= count => (0..count).collect(),
            // The middles of as many equal parts.
            Self::All { max } => {
                let middle = |part: u32| (2 * u64::from(part) + 1) * u64::from(count) / (2 * u64::from(max));
                (0..max).map(|part| middle(part) as u32).collect()
            }
            Self::Every(step) => (0..count).step_by(step.max(1) as usize).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_its_frames() {
        assert_eq!(FramePolicy::default().frames(1), [0]);
        assert_eq!(FramePolicy::Middle.frames(10), [5]);
        assert_eq!(FramePolicy::First.frames(10), [0]);
        assert_eq!(FramePolicy::All { max: 3 }.frames(2), [0, 1]);
        assert_eq!(FramePolicy::All { max: 3 }.frames(9), [1, 4, 7]);
        assert_eq!(FramePolicy::Every(4).frames(9), [0, 4, 8]);
        assert_eq!(FramePolicy::Every(0).frames(2), [0, 1]);
        assert!(FramePolicy::All { max: 0 }.frames(5).is_empty());
        assert_eq!(FramePolicy::All { max: 2 }.frames(u32::MAX), [1_073_741_823, 3_221_225_471]);
    }
}
