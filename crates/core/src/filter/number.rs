//! Numbers of attributes and filters, in one order.

use std::cmp::Ordering;

/// A whole or fractional number. Numbers compare by value, exactly: 40 and 40.0 are equal, and no
/// integer is rounded on the way. A value that is not a number counts as the greatest.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
}

impl Number {
    pub(super) fn is_finite(self) -> bool {
        match self {
            Self::Integer(_) => true,
            Self::Float(v) => v.is_finite(),
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => {
                a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            }
            (Self::Integer(a), Self::Float(b)) => integer_to_float(a, b),
            (Self::Float(a), Self::Integer(b)) => integer_to_float(b, a).reverse(),
        }
    }
}

/// Compares without rounding the integer, as a cast to `f64` would beyond 2^53.
fn integer_to_float(a: i64, b: f64) -> Ordering {
    const TWO_63: f64 = 9_223_372_036_854_775_808.0;
    if b.is_nan() || b >= TWO_63 {
        return Ordering::Less;
    }
    if b < -TWO_63 {
        return Ordering::Greater;
    }
    let whole = b.trunc();
    // In range by the two checks above, so the cast is exact.
    a.cmp(&(whole as i64)).then_with(|| whole.partial_cmp(&b).expect("neither is NaN"))
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}
