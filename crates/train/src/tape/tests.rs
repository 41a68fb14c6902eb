//! Every operation against its definition and against finite differences.

#![allow(clippy::unwrap_used)]

use diptych_kernels::Activation;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::params::{Init, Layout, Span, Values, normal};

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let rng = &mut rng(seed);
    (0..n).map(|_| normal(rng)).collect()
}

/// A layout of random tensors.
struct Bench {
    layout: Layout,
    values: Values,
}

impl Bench {
    fn new() -> Self {
        Self { layout: Layout::default(), values: Values::default() }
    }

    fn span(&mut self, len: usize, trained: bool) -> Span {
        let at = self.layout.slots().len();
        let span = self.layout.tensor(&format!("{at}"), &[len], Init::Normal(1.0), false, trained);
        let all = if trained { &mut self.values.trained } else { &mut self.values.frozen };
        all.extend(noise(len, at as u64 + 100));
        span
    }

    /// Holds the gradients of `<weights, build(inputs)>` to finite differences, for each tensor and each
    /// input, along the gradient and in a random direction.
    fn check(&self, inputs: &[(Vec<f32>, usize)], build: impl Fn(&mut Tape, &Params<'_>, &[Node]) -> Node) {
        let run = |values: &Values, inputs: &[(Vec<f32>, usize)], grads: Option<&mut [f32]>| {
            let mut tape = Tape::new();
            // What lay in a buffer before must not matter.
            let old = tape.input(&vec![f32::NAN; 4096], 1);
            assert_eq!(tape.count(old), 4096);
            tape.reset();
            let nodes: Vec<Node> = inputs.iter().map(|(rows, width)| tape.variable(rows, *width)).collect();
            let y = build(&mut tape, &values.params(), &nodes);
            let weights = noise(tape.rows(y).len(), 77);
            let dots = tape.rows(y).iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w));
            let value: f64 = dots.sum();
            let mut of_inputs = Vec::new();
            if let Some(grads) = grads {
                tape.backward(y, &weights, &values.params(), grads);
                of_inputs = nodes.iter().map(|n| tape.gradient(*n).map(<[f32]>::to_vec)).collect();
            }
            (value, of_inputs)
        };
        let mut grads = vec![0f32; self.layout.len()];
        let (_, of_inputs) = run(&self.values, inputs, Some(&mut grads));
        let trained = self.layout.slots().iter().filter(|slot| slot.span.trained());
        for slot in trained {
            verify(&slot.name, slot.span.of(&grads), |direction, by| {
                let mut values = self.values.clone();
                let moved = slot.span.of_mut(&mut values.trained).iter_mut().zip(direction);
                moved.for_each(|(v, d)| *v += by * d);
                run(&values, inputs, None).0
            });
        }
        for (i, gradient) in of_inputs.iter().enumerate() {
            verify(&format!("input {i}"), gradient.as_deref().unwrap(), |direction, by| {
                let mut inputs = inputs.to_vec();
                inputs[i].0.iter_mut().zip(direction).for_each(|(v, d)| *v += by * d);
                run(&self.values, &inputs, None).0
            });
        }
    }
}

fn verify(what: &str, gradient: &[f32], moved: impl Fn(&[f32], f32) -> f64) {
    let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
    assert!(norm > 1e-4, "{what} receives no gradient ({norm})");
    let random = noise(gradient.len(), 55);
    let length = random.iter().map(|r| r * r).sum::<f32>().sqrt();
    let along = gradient.iter().map(|g| g / norm).collect::<Vec<_>>();
    for direction in [along, random.iter().map(|r| r / length).collect()] {
        let step = 4e-3;
        let measured = (moved(&direction, step) - moved(&direction, -step)) / f64::from(2.0 * step);
        let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        let tolerance = 3e-3 * f64::from(norm) + 1e-3;
        assert!((measured - expected).abs() < tolerance, "{what}: measured {measured}, computed {expected}");
    }
}

fn forward(
    bench: &Bench,
    x: &[f32],
    width: usize,
    build: impl Fn(&mut Tape, &Params<'_>, Node) -> Node,
) -> Vec<f32> {
    let mut tape = Tape::new();
    let x = tape.input(x, width);
    let y = build(&mut tape, &bench.values.params(), x);
    tape.rows(y).to_vec()
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (at, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*f) - e).abs() < 2e-5 * (1.0 + e.abs()), "at {at}: {f} instead of {e}");
    }
}

fn piece(span: Span) -> Piece {
    Piece { span, transposed: false }
}

fn pieces(spans: &[Span]) -> Vec<Piece> {
    spans.iter().copied().map(piece).collect()
}

/// `(x W^T + b) * scale` with W row by row.
fn slow_linear(x: &[f32], w: &[f32], b: &[f32], scale: &[f32], k: usize) -> Vec<f64> {
    let row = |x: &[f32], o: usize| {
        let sum: f64 = x.iter().zip(&w[o * k..]).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
        (sum + f64::from(b[o])) * f64::from(scale[o])
    };
    x.chunks_exact(k).flat_map(|x| (0..b.len()).map(move |o| row(x, o))).collect()
}

#[test]
fn a_linear_layer_multiplies_whatever_it_is_stacked_from() {
    let mut bench = Bench::new();
    // Three weights apart from one another, two biases, one of them for two weights, and a scale.
    let w: Vec<Span> = [3, 2, 4].map(|rows| (bench.span(rows * 5, true), bench.span(1, true)).0).to_vec();
    let b = [bench.span(5, true), bench.span(4, false)];
    let scale = bench.span(9, true);
    let layer = LinearSpan::new(&pieces(&w), &b, Some(scale), (9, 5));
    let x = noise(7 * 5, 1);
    let p = bench.values.params();
    let weights: Vec<f32> = w.iter().flat_map(|span| p.of(*span).to_vec()).collect();
    let biases = [p.of(b[0]), p.of(b[1])].concat();
    let expected = slow_linear(&x, &weights, &biases, p.of(scale), 5);
    assert_close(&forward(&bench, &x, 5, |tape, p, x| tape.linear(x, &layer, p)), &expected);
    // Some of its outputs alone are those columns.
    let some = layer.outputs(2, 4);
    let columns: Vec<f64> = expected.chunks_exact(9).flat_map(|row| row[2..6].to_vec()).collect();
    assert_close(&forward(&bench, &x, 5, |tape, p, x| tape.linear(x, &some, p)), &columns);
}

#[test]
fn a_mapped_linear_layer_puts_out_what_the_map_makes_of_its_output() {
    let mut bench = Bench::new();
    // Two weights apart from one another, the second stored the other way round, and two biases.
    let first = piece(bench.span(3 * 5, true));
    let biases = [bench.span(1, true), bench.span(3, true)];
    let second = Piece { span: bench.span(5, true), transposed: true };
    let layer = LinearSpan::new(&[first, second], &biases, None, (4, 5));
    let (x, map) = (noise(7 * 5, 1), noise(4 * 4, 2));
    let before = forward(&bench, &x, 5, |tape, p, x| tape.linear(x, &layer, p));
    let expected = slow_linear(&before, &map, &[0.0; 4], &[1.0; 4], 4);
    layer.mapped(&mut bench.values.trained, &map);
    assert_close(&forward(&bench, &x, 5, |tape, p, x| tape.linear(x, &layer, p)), &expected);
}

#[test]
fn linear_layers_have_their_gradients() {
    let mut bench = Bench::new();
    let stacked = LinearSpan::new(
        &[piece(bench.span(3 * 5, true)), piece(bench.span(2 * 5, true))],
        &[bench.span(3, true), bench.span(2, true)],
        Some(bench.span(5, true)),
        (5, 5),
    );
    let transposed = Piece { span: bench.span(5 * 4, true), transposed: true };
    let right = LinearSpan::new(&[transposed], &[], None, (4, 5));
    let frozen = LinearSpan::new(&[piece(bench.span(4 * 4, false))], &[bench.span(4, true)], None, (4, 4));
    bench.check(&[(noise(30, 1), 5)], |tape, p, x| {
        let y = tape.linear_add(x[0], &stacked, x[0], p);
        let y = tape.linear(y, &right, p);
        tape.linear_add(y, &frozen, y, p)
    });
}

#[test]
fn neighbours_become_one_product() {
    let mut bench = Bench::new();
    let spans: Vec<Span> = (0..3).map(|_| bench.span(8, true)).collect();
    let layer = LinearSpan::new(&pieces(&spans), &[], None, (6, 4));
    assert!(format!("{layer:?}").matches("Piece").count() == 1, "{layer:?}");
}

#[test]
fn layer_norm_has_its_gradients_trained_or_frozen() {
    let mut bench = Bench::new();
    let open = NormSpan::new(bench.span(19, true), bench.span(19, true), 1e-5);
    let shut = NormSpan::new(bench.span(19, false), bench.span(19, false), 1e-12);
    bench.check(&[(noise(4 * 19, 1), 19)], |tape, p, x| {
        let y = tape.layer_norm(x[0], &open, p);
        let y = tape.add(x[0], y);
        tape.layer_norm(y, &shut, p)
    });
    let x = noise(2 * 19, 5);
    let (w, b) = (&bench.values.trained[..19], &bench.values.trained[19..38]);
    let expected: Vec<f64> = x
        .chunks_exact(19)
        .flat_map(|row| {
            let row: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
            let mean = row.iter().sum::<f64>() / 19.0;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 19.0;
            let of = move |i: usize| (row[i] - mean) / (variance + 1e-5).sqrt();
            (0..19).map(move |i| of(i) * f64::from(w[i]) + f64::from(b[i]))
        })
        .collect();
    assert_close(&forward(&bench, &x, 19, |tape, p, x| tape.layer_norm(x, &open, p)), &expected);
}

#[test]
fn activations_have_their_derivatives() {
    use Activation::{Gelu, GeluTanh, QuickGelu, Relu, Silu, Tanh};
    for activation in [QuickGelu, Gelu, GeluTanh, Relu, Silu, Tanh] {
        // Far from the corner of ReLU, where finite differences mean nothing.
        let x: Vec<f32> = (-40..40).map(|i| (i as f32 + 0.5) / 10.0).collect();
        let mut y = x.clone();
        activation.apply(&mut y);
        let bench = Bench::new();
        assert_eq!(forward(&bench, &x, 8, |tape, _, x| tape.activation(x, activation)), y);
        bench.check(&[(x.clone(), 8)], |tape, _, x| tape.activation(x[0], activation));
        // Each derivative by itself, in double precision by Richardson's extrapolation of the function.
        let mut tape = Tape::new();
        let node = tape.variable(&x, 1);
        let out = tape.activation(node, activation);
        tape.backward(out, &vec![1.0; x.len()], &bench.values.params(), &mut []);
        for (x, d) in x.iter().zip(tape.gradient(node).unwrap()) {
            let at = |by: f32| {
                let mut v = [x + by];
                activation.apply(&mut v);
                f64::from(v[0])
            };
            let slope = (at(0.01) - at(-0.01)) / f64::from((x + 0.01) - (x - 0.01));
            assert!((slope - f64::from(*d)).abs() < 3e-4, "{activation} at {x}: {d} instead of {slope}");
        }
    }
}

/// The definition of attention, in double precision, over rows `[q | k | v]`.
fn slow_attention(qkv: &[f32], t: usize, heads: usize, size: usize, visible: Visible<'_>) -> Vec<f64> {
    let w = heads * size;
    let get = |row: usize, part: usize, c: usize| f64::from(qkv[row * 3 * w + part * w + c]);
    let rows = qkv.len() / (3 * w);
    let mut out = vec![0.0; rows * w];
    for (row, h) in (0..rows * heads).map(|i| (i / heads, i % heads)) {
        let (sample, i) = (row / t, row % t);
        let mut seen = visible.lengths.map_or(t, |l| l[sample]);
        if visible.causal {
            seen = seen.min(i + 1);
        }
        let score = |j: usize| {
            let dot = (0..size).map(|c| get(row, 0, h * size + c) * get(sample * t + j, 1, h * size + c));
            (dot.sum::<f64>() / (size as f64).sqrt()).exp()
        };
        let total: f64 = (0..seen).map(score).sum();
        for c in 0..size {
            out[row * w + h * size + c] =
                (0..seen).map(|j| score(j) / total * get(sample * t + j, 2, h * size + c)).sum();
        }
    }
    out
}

fn fused(x: Node, w: usize) -> [Columns; 3] {
    [0, w, 2 * w].map(|first| Columns { node: x, first })
}

#[test]
fn attention_follows_the_definition_and_has_its_gradients_under_every_mask() {
    let (t, heads, size) = (6, 2, 3);
    let w = heads * size;
    let x = noise(3 * t * 3 * w, 9);
    for causal in [false, true] {
        for lengths in [None, Some(&[6, 2, 1][..])] {
            let visible = Visible { causal, lengths };
            let attend = |tape: &mut Tape, x: Node| tape.attention(fused(x, w), 3, (heads, w), visible);
            let expected = slow_attention(&x, t, heads, size, visible);
            let mut tape = Tape::new();
            for x in [tape.input(&x, 3 * w), tape.variable(&x, 3 * w)] {
                let y = attend(&mut tape, x);
                assert_close(tape.rows(y), &expected);
            }
            Bench::new().check(&[(x.clone(), 3 * w)], |tape, _, x| attend(tape, x[0]));
        }
    }
}

#[test]
fn queries_of_their_own_pool_what_others_hold() {
    let (t, heads, size) = (5, 2, 4);
    let w = heads * size;
    let (q, kv) = (noise(3 * w, 3), noise(3 * t * 2 * w, 4));
    let lengths = [5, 3, 1];
    let columns = |q: Node, kv: Node| {
        [Columns { node: q, first: 0 }, Columns { node: kv, first: 0 }, Columns { node: kv, first: w }]
    };
    let visible = Visible { causal: false, lengths: Some(&lengths) };
    Bench::new().check(&[(q, w), (kv.clone(), 2 * w)], |tape, _, x| {
        let y = tape.attention(columns(x[0], x[1]), 3, (heads, w), visible);
        // A second reader of the same rows adds to their gradient.
        let z = tape.attention(columns(y, x[1]), 3, (heads, w), Visible::default());
        tape.add(y, z)
    });
    // Frozen queries over open keys, and the other way round.
    let mut bench = Bench::new();
    let probe = bench.span(w, false);
    let open = bench.span(w, true);
    bench.check(&[(kv, 2 * w)], |tape, p, x| {
        let still = tape.input(&noise(3 * t * 2 * w, 8), 2 * w);
        let shut = tape.parameter(probe, w, p);
        let shut = tape.gather(shut, [0; 3].into_iter());
        let y = tape.attention(columns(shut, x[0]), 3, (heads, w), visible);
        let open = tape.parameter(open, w, p);
        let open = tape.gather(open, [0; 3].into_iter());
        let z = tape.attention(columns(open, still), 3, (heads, w), visible);
        tape.add(y, z)
    });
}

#[test]
fn rows_go_where_they_are_sent() {
    let mut bench = Bench::new();
    let (table, positions, class) = (bench.span(4 * 3, true), bench.span(3 * 3, true), bench.span(3, true));
    let ids = [2, 0, 3, 2, NOTHING, 2];
    let build = |tape: &mut Tape, p: &Params<'_>, x: Node| {
        let y = tape.lookup(table, 3, ids.into_iter(), p);
        let y = tape.add_rows(y, positions, p);
        let y = tape.add(y, x);
        let y = tape.prepend(y, class, 3, p);
        let means = tape.mean(y, [0..4, 5..7].into_iter());
        let picks = tape.gather(y, [0, 7].into_iter());
        tape.add(means, picks)
    };
    let x = noise(18, 2);
    let p = bench.values.params();
    let (t, pos, class) = (p.of(table), p.of(positions), p.of(class));
    let row = |i: usize, c: usize| {
        let token = if ids[i] == NOTHING { 0.0 } else { t[ids[i] * 3 + c] };
        f64::from(token + pos[i % 3 * 3 + c] + x[i * 3 + c])
    };
    let expected: Vec<f64> = (0..6)
        .map(|i| (i / 3, i % 3))
        .map(|(sample, c)| match sample {
            0 => (f64::from(class[c]) + row(0, c) + row(1, c) + row(2, c)) / 4.0 + f64::from(class[c]),
            _ => (row(3, c) + row(4, c)) / 2.0 + row(5, c),
        })
        .collect();
    assert_close(&forward(&bench, &x, 3, build), &expected);
    bench.check(&[(x, 3)], |tape, p, x| build(tape, p, x[0]));
}

#[test]
fn dropout_depends_on_the_seed_of_a_row_and_keeps_the_mean() {
    let bench = Bench::new();
    let x = vec![1f32; 4 * 1000];
    let y = forward(&bench, &x, 1000, |tape, _, x| tape.dropout(x, 0.25, &[1, 2, 1, 3]));
    assert!(y[..1000] == y[2000..3000] && y[..1000] != y[1000..2000]);
    let dropped = y.iter().filter(|v| **v == 0.0).count();
    assert!((900..1100).contains(&dropped), "{dropped} of 4000");
    assert!(y.iter().all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6));
    assert_eq!(forward(&bench, &x, 1000, |tape, _, x| tape.dropout(x, 0.0, &[1; 4])), x);
    bench.check(&[(noise(40, 3), 10)], |tape, _, x| tape.dropout(x[0], 0.4, &[5, 6, 7, 8]));
}

#[test]
fn unit_rows_have_length_one_and_their_gradient() {
    let bench = Bench::new();
    let x = noise(3 * 7, 6);
    for (row, x) in forward(&bench, &x, 7, |tape, _, x| tape.unit(x)).chunks(7).zip(x.chunks(7)) {
        let norm = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        assert_close(row, &x.iter().map(|v| f64::from(*v) / norm).collect::<Vec<_>>());
    }
    bench.check(&[(x, 7)], |tape, _, x| tape.unit(x[0]));
}

#[test]
fn a_step_like_the_last_allocates_nothing_and_gives_the_same_bits() {
    let mut bench = Bench::new();
    let norm = NormSpan::new(bench.span(6, true), bench.span(6, true), 1e-5);
    let layer = LinearSpan::new(&[piece(bench.span(18 * 6, true))], &[bench.span(18, true)], None, (18, 6));
    let x = noise(4 * 3 * 6, 1);
    let mut tape = Tape::new();
    let mut step = || {
        tape.reset();
        let x = tape.input(&x, 6);
        let y = tape.layer_norm(x, &norm, &bench.values.params());
        let y = tape.linear(y, &layer, &bench.values.params());
        let y = tape.attention(fused(y, 6), 4, (2, 6), Visible { causal: true, lengths: None });
        let y = tape.activation(y, Activation::Gelu);
        let mut grads = vec![0f32; bench.layout.len()];
        tape.backward(y, &noise(72, 3), &bench.values.params(), &mut grads);
        (grads, tape.bytes())
    };
    let first = step();
    assert!(first.1 > 0 && (0..3).all(|_| step() == first));
}

#[test]
fn what_nothing_trained_leads_to_is_let_go() {
    let mut bench = Bench::new();
    let shut = LinearSpan::new(&[piece(bench.span(36, false))], &[], None, (6, 6));
    let open = LinearSpan::new(&[piece(bench.span(36, true))], &[], None, (6, 6));
    let mut tape = Tape::new();
    let p = bench.values.params();
    let x = tape.input(&noise(600, 1), 6);
    let mut frozen = x;
    for _ in 0..10 {
        let mark = tape.mark();
        let y = tape.linear(frozen, &shut, &p);
        frozen = tape.linear(y, &shut, &p);
        tape.release(mark, frozen);
        tape.release(mark - 1, frozen);
    }
    assert!(!tape.needs(frozen) && tape.bytes() <= 3 * 4 * 640, "{}", tape.bytes());
    let y = tape.linear(frozen, &open, &p);
    let mut grads = vec![0f32; 36];
    tape.backward(y, &vec![1.0; 600], &p, &mut grads);
    assert!(grads.iter().all(|g| *g != 0.0));
    tape.backward(frozen, &vec![1.0; 600], &p, &mut []);
    assert_eq!(tape.count(frozen), 100);
}
