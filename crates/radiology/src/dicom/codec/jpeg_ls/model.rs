//! The model of JPEG-LS (ITU-T T.87 annex A): contexts from neighbours, predicted samples, Golomb-coded errors,
//! and runs. Letters are those of the recommendation.

use super::{DicomError, damaged};

/// Bits of a run's length by its index (J).
const RUN_BITS: [u32; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// Contexts of single samples, merged by sign.
const CONTEXTS: usize = 365;

/// What a scan is coded with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameters {
    /// MAXVAL.
    pub maximum: i32,
    /// NEAR: the largest error of a sample; zero for lossless.
    pub near: i32,
    pub thresholds: [i32; 3],
    pub reset: i32,
}

/// The line that is being decoded and the one above it, each with a margin of one sample on both sides.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    above: Vec<i32>,
    here: Vec<i32>,
}

impl Lines {
    pub(super) fn new(columns: usize) -> Self {
        Self { above: vec![0; columns + 2], here: vec![0; columns + 2] }
    }

    /// Begins the next line.
    pub(super) fn turn(&mut self) {
        std::mem::swap(&mut self.above, &mut self.here);
        let last = self.above.len() - 1;
        self.above[last] = self.above[last - 1];
        self.here[0] = self.above[1];
    }

    /// The samples of the line.
    pub(super) fn samples(&self) -> &[i32] {
        &self.here[1..self.here.len() - 1]
    }

    fn columns(&self) -> usize {
        self.here.len() - 2
    }

    /// Ra, Rb, Rc and Rd of a column, counted from 1.
    #[inline(always)]
    fn neighbours(&self, column: usize) -> [i32; 4] {
        [self.here[column - 1], self.above[column], self.above[column - 1], self.above[column + 1]]
    }
}

#[derive(Debug, Clone, Copy)]
struct Context {
    a: i32,
    b: i32,
    c: i32,
    n: i32,
}

/// The state of a scan.
pub(super) struct Model<'a> {
    parameters: Parameters,
    range: i32,
    qbpp: u32,
    limit: u32,
    contexts: Vec<Context>,
    /// Contexts of the samples that end a run; `b` counts the negative errors (Nn).
    run_contexts: [Context; 2],
    run_index: Vec<usize>,
    bits: Bits<'a>,
}

impl<'a> Model<'a> {
    pub(super) fn new(parameters: Parameters, data: &'a [u8], components: usize) -> Self {
        let Parameters { maximum, near, .. } = parameters;
        let range = (maximum + 2 * near) / (2 * near + 1) + 1;
        let bits_for = |values: i32| 32 - (values - 1).leading_zeros();
        let bpp = bits_for(maximum + 1).max(2);
        let start = Context { a: ((range + 32) / 64).max(2), b: 0, c: 0, n: 1 };
        Self {
            parameters,
            range,
            qbpp: bits_for(range),
            limit: 2 * (bpp + bpp.max(8)),
            contexts: vec![start; CONTEXTS],
            run_contexts: [start; 2],
            run_index: vec![0; components],
            bits: Bits { data, at: 0, buffer: 0, count: 0, past_end: 0 },
        }
    }

    /// Bytes read so far, at most.
    pub(super) fn position(&self) -> usize {
        // The buffer runs ahead of what is used, but never over a marker.
        self.bits.at
    }

    /// Decodes a line of one component.
    pub(super) fn line(&mut self, lines: &mut Lines, component: usize) -> Result<(), DicomError> {
        let columns = lines.columns();
        let mut column = 1;
        while column <= columns {
            let [ra, rb, rc, rd] = lines.neighbours(column);
            let q = self.quantised(rd - rb, rb - rc, rc - ra);
            if q != 0 {
                lines.here[column] = self.regular(q, ra, rb, rc)?;
                column += 1;
                continue;
            }
            let (run, ended) = self.run(columns + 1 - column, component)?;
            lines.here[column..column + run].fill(ra);
            column += run;
            if ended {
                let [ra, rb, ..] = lines.neighbours(column);
                let kind = usize::from((ra - rb).abs() <= self.parameters.near);
                lines.here[column] = self.run_end(kind, ra, rb, component)?;
                self.run_index[component] = self.run_index[component].saturating_sub(1);
                column += 1;
            }
        }
        self.bits.check()
    }

    /// Decodes a line of several components, pixel by pixel; a run is one of all of them.
    pub(super) fn line_by_sample(&mut self, lines: &mut [Lines]) -> Result<(), DicomError> {
        let columns = lines[0].columns();
        let mut column = 1;
        while column <= columns {
            let mut quantised = [0; 256];
            for (q, line) in quantised.iter_mut().zip(lines.iter()) {
                let [ra, rb, rc, rd] = line.neighbours(column);
                *q = self.quantised(rd - rb, rb - rc, rc - ra);
            }
            if quantised.iter().any(|&q| q != 0) {
                for (&q, line) in quantised.iter().zip(lines.iter_mut()) {
                    let [ra, rb, rc, _] = line.neighbours(column);
                    line.here[column] = self.regular(q, ra, rb, rc)?;
                }
                column += 1;
                continue;
            }
            let (run, ended) = self.run(columns + 1 - column, 0)?;
            for line in lines.iter_mut() {
                let ra = line.here[column - 1];
                line.here[column..column + run].fill(ra);
            }
            column += run;
            if ended {
                for line in lines.iter_mut() {
                    let [ra, rb, ..] = line.neighbours(column);
                    line.here[column] = self.run_end(0, ra, rb, 0)?;
                }
                self.run_index[0] = self.run_index[0].saturating_sub(1);
                column += 1;
            }
        }
        self.bits.check()
    }

    /// The number of a context, negative where it is the mirror of another.
    #[inline(always)]
    fn quantised(&self, d1: i32, d2: i32, d3: i32) -> i32 {
        (self.level(d1) * 9 + self.level(d2)) * 9 + self.level(d3)
    }

    #[inline(always)]
    fn level(&self, difference: i32) -> i32 {
        let Parameters { near, thresholds: [t1, t2, t3], .. } = self.parameters;
        let size = difference.abs();
        let level = match size {
            _ if size <= near => return 0,
            _ if size < t1 => 1,
            _ if size < t2 => 2,
            _ if size < t3 => 3,
            _ => 4,
        };
        level * difference.signum()
    }

    /// A sample outside of runs (A.4 to A.6).
    #[inline(always)]
    fn regular(&mut self, q: i32, ra: i32, rb: i32, rc: i32) -> Result<i32, DicomError> {
        let Parameters { maximum, near, reset, .. } = self.parameters;
        let sign = if q < 0 { -1 } else { 1 };
        let index = q.unsigned_abs() as usize;
        let median = if rc >= ra.max(rb) {
            ra.min(rb)
        } else if rc <= ra.min(rb) {
            ra.max(rb)
        } else {
            ra + rb - rc
        };
        let Context { a, b, c, n } = self.contexts[index];
        let predicted = (median + sign * c).clamp(0, maximum);
        let k = golomb_parameter(n, a)?;
        let coded = self.bits.golomb(k, self.limit, self.qbpp)?;
        let folded = if coded & 1 == 0 { coded >> 1 } else { -((coded + 1) >> 1) };
        let error = if near == 0 && k == 0 && 2 * b <= -n { -folded - 1 } else { folded };
        self.contexts[index] = updated(Context { a, b, c, n }, error, near, reset);
        Ok(self.reconstructed(predicted, sign * error))
    }

    #[inline(always)]
    fn reconstructed(&self, predicted: i32, error: i32) -> i32 {
        let Parameters { maximum, near, .. } = self.parameters;
        let step = 2 * near + 1;
        let mut value = predicted + error * step;
        if value < -near {
            value += self.range * step;
        } else if value > maximum + near {
            value -= self.range * step;
        }
        value.clamp(0, maximum)
    }

    /// The length of a run, at most `left`, and whether a sample ends it before the line does (A.7.1).
    fn run(&mut self, left: usize, component: usize) -> Result<(usize, bool), DicomError> {
        let mut length = 0;
        while length < left {
            let bits = RUN_BITS[self.run_index[component]];
            if self.bits.take(1) == 0 {
                length += self.bits.take(bits) as usize;
                return if length < left {
                    Ok((length, true))
                } else {
                    Err(damaged("a run is longer than its line"))
                };
            }
            let whole = 1 << bits;
            if length + whole > left {
                return Ok((left, false));
            }
            length += whole;
            self.run_index[component] = (self.run_index[component] + 1).min(31);
        }
        Ok((left, false))
    }

    /// The sample that ends a run (A.7.2).
    fn run_end(&mut self, kind: usize, ra: i32, rb: i32, component: usize) -> Result<i32, DicomError> {
        let reset = self.parameters.reset;
        let Context { mut a, b: mut negatives, c, mut n } = self.run_contexts[kind];
        let scale = if kind == 0 { a } else { a + (n >> 1) };
        let k = golomb_parameter(n, scale)?;
        let limit = self.limit - RUN_BITS[self.run_index[component]] - 1;
        let coded = self.bits.golomb(k, limit, self.qbpp)?;
        let doubled = coded + kind as i32;
        let is_odd = doubled & 1 == 1;
        let size = (doubled + 1) >> 1;
        let is_negative = (k != 0 || 2 * negatives >= n) == is_odd;
        let error = if is_negative { -size } else { size };
        if error < 0 {
            negatives += 1;
        }
        a += (coded + 1 - kind as i32) >> 1;
        if n == reset {
            (a, n, negatives) = (a >> 1, n >> 1, negatives >> 1);
        }
        self.run_contexts[kind] = Context { a, b: negatives, c, n: n + 1 };
        let (predicted, sign) = match kind {
            0 if ra > rb => (rb, -1),
            0 => (rb, 1),
            _ => (ra, 1),
        };
        Ok(self.reconstructed(predicted, sign * error))
    }
}

/// The smallest k for which n 2^k reaches a.
#[inline(always)]
fn golomb_parameter(n: i32, a: i32) -> Result<u32, DicomError> {
    let mut k = 0;
    while i64::from(n) << k < i64::from(a) {
        k += 1;
        if k > 24 {
            return Err(damaged("its errors grow beyond any sample"));
        }
    }
    Ok(k)
}

/// A context that has seen one more error (A.6).
#[inline(always)]
fn updated(context: Context, error: i32, near: i32, reset: i32) -> Context {
    let Context { mut a, mut b, mut c, mut n } = context;
    b += error * (2 * near + 1);
    a += error.abs();
    if n == reset {
        (a, b, n) = (a >> 1, b >> 1, n >> 1);
    }
    n += 1;
    if b <= -n {
        b = (b + n).max(1 - n);
        c = (c - 1).max(-128);
    } else if b > 0 {
        b = (b - n).min(0);
        c = (c + 1).min(127);
    }
    Context { a, b, c, n }
}

/// Bits, without the zero bit that follows a byte of ones.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// Left-aligned.
    buffer: u64,
    count: u32,
    past_end: usize,
}

impl Bits<'_> {
    fn refill(&mut self) {
        while self.count <= 56 {
            let (byte, bits) = match self.data.get(self.at) {
                // A byte of ones is followed by seven bits, or by a marker.
                Some(0xFF) if self.data.get(self.at + 1).is_none_or(|&next| next >= 0x80) => {
                    self.past_end += 1;
                    (0, 8)
                }
                Some(&byte) => {
                    let is_short = self.at > 0 && self.data[self.at - 1] == 0xFF;
                    self.at += 1;
                    if is_short { (u64::from(byte) << 1, 7) } else { (u64::from(byte), 8) }
                }
                None => {
                    self.past_end += 1;
                    (0, 8)
                }
            };
            self.buffer |= byte << 56 >> self.count;
            self.count += bits;
        }
    }

    fn take(&mut self, bits: u32) -> u32 {
        if bits == 0 {
            return 0;
        }
        if self.count < bits {
            self.refill();
        }
        let value = (self.buffer >> (64 - bits)) as u32;
        self.buffer <<= bits;
        self.count -= bits;
        value
    }

    /// A code of Golomb and Rice of limited length (A.5.3).
    #[inline(always)]
    fn golomb(&mut self, k: u32, limit: u32, qbpp: u32) -> Result<i32, DicomError> {
        let longest = limit - qbpp - 1;
        let mut zeros = 0;
        loop {
            if self.count < 32 {
                self.refill();
            }
            let ahead = self.buffer.leading_zeros().min(self.count);
            zeros += ahead;
            if zeros > longest {
                return Err(damaged("a code is longer than any"));
            }
            if ahead < self.count {
                self.buffer = self.buffer << ahead << 1;
                self.count -= ahead + 1;
                break;
            }
            (self.buffer, self.count) = (0, 0);
        }
        let value = if zeros < longest { zeros << k | self.take(k) } else { self.take(qbpp) + 1 };
        i32::try_from(value)
            .ok()
            .filter(|&value| value < 1 << 24)
            .ok_or_else(|| damaged("an error is too large"))
    }

    fn check(&self) -> Result<(), DicomError> {
        if self.past_end > 8 { Err(damaged("the scan ends too early")) } else { Ok(()) }
    }
}
