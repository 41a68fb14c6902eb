//! Every objective once more, for the tests: scalar, slow, in double precision, read off the equations.
//!
//! Owns: the values that losses are compared with, and of which finite differences are taken.
//! Deliberately absent: gradients, matrix products, stable forms: nothing here is shared with the
//! implementation.

use super::*;

/// A batch in double precision.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub dim: usize,
    pub images: Vec<f64>,
    pub texts: Vec<f64>,
    pub relation: Vec<Relation>,
    pub second_images: Vec<f64>,
    pub second_texts: Vec<f64>,
    pub key_images: Vec<f64>,
    pub key_texts: Vec<f64>,
    pub image_ids: Vec<u64>,
    pub text_ids: Vec<u64>,
    /// Unit rows.
    pub image_queue: Vec<f64>,
    pub image_queue_ids: Vec<u64>,
    pub text_queue: Vec<f64>,
    pub text_queue_ids: Vec<u64>,
    pub label_similarity: Vec<f64>,
}

impl Batch {
    pub fn n(&self) -> usize {
        self.images.len() / self.dim
    }

    pub fn m(&self) -> usize {
        self.texts.len() / self.dim
    }

    fn related(&self, i: usize, j: usize) -> Relation {
        self.relation[i * self.m() + j]
    }

    fn positive(&self, i: usize, j: usize) -> bool {
        self.related(i, j) == Relation::Positive
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let all = (0..self.n()).flat_map(|i| (0..self.m()).map(move |j| (i, j)));
        all.filter(|&(i, j)| self.positive(i, j)).collect()
    }

    fn cosine(&self, i: usize, j: usize) -> f64 {
        cosine(row(&self.images, i, self.dim), row(&self.texts, j, self.dim))
    }

    /// Images that share a text.
    fn kin_images(&self, a: usize, b: usize) -> bool {
        let shares =
            |a, b| (0..self.m()).any(|j| self.positive(a, j) && self.related(b, j) != Relation::Negative);
        a == b || shares(a, b) || shares(b, a)
    }

    /// Texts that have an image in common.
    fn kin_texts(&self, a: usize, b: usize) -> bool {
        let shares =
            |a, b| (0..self.n()).any(|i| self.positive(i, a) && self.related(i, b) != Relation::Negative);
        a == b || shares(a, b) || shares(b, a)
    }
}

pub(super) fn row(rows: &[f64], i: usize, dim: usize) -> &[f64] {
    &rows[i * dim..][..dim]
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn cosine(a: &[f64], b: &[f64]) -> f64 {
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Mean over anchors with a positive of the mean over their positives of
/// `-ln(exp s_p / (exp s_p + sum exp s_n))`.
fn cross_entropy(
    anchors: usize,
    candidates: usize,
    logit: impl Fn(usize, usize) -> f64,
    related: impl Fn(usize, usize) -> Relation,
) -> f64 {
    let of = |a: usize, kind: Relation| -> Vec<f64> {
        (0..candidates).filter(|&b| related(a, b) == kind).map(|b| logit(a, b)).collect()
    };
    mean((0..anchors).filter(|&a| !of(a, Relation::Positive).is_empty()).map(|a| {
        let negatives: f64 = of(a, Relation::Negative).iter().map(|s| s.exp()).sum();
        mean(of(a, Relation::Positive).iter().map(|s| -(s.exp() / (s.exp() + negatives)).ln()))
    }))
}

/// `1 / tau`.
fn scale(temperature: f32, scalars: &[f64]) -> f64 {
    if scalars.is_empty() { 1.0 / f64::from(temperature) } else { scalars[0].exp() }
}

/// The value of an objective.
pub(super) fn loss(objective: &Objective, b: &Batch, scalars: &[f64]) -> f64 {
    let (n, m) = (b.n(), b.m());
    match objective {
        Objective::InfoNce(o) => across(b, scale(o.temperature, scalars), 0.5),
        Objective::Convirt(o) => across(b, scale(o.temperature, scalars), f64::from(o.lambda)),
        Objective::Siglip(_) => {
            let question = |(i, j): (usize, usize)| {
                let z = match b.related(i, j) {
                    Relation::Positive => 1.0,
                    Relation::Negative => -1.0,
                    Relation::Neutral => return 0.0,
                };
                -(1.0 / (1.0 + (-z * (scalars[0].exp() * b.cosine(i, j) + scalars[1])).exp())).ln()
            };
            let all = (0..n).flat_map(|i| (0..m).map(move |j| (i, j)));
            all.map(question).sum::<f64>() / n as f64
        }
        Objective::SoftTargets(o) => soft_targets(b, o, scale(o.temperature, scalars)),
        Objective::Vse0(o) => triplet(b, f64::from(o.margin), |hinges| hinges.iter().sum()),
        Objective::VsePlusPlus(o) => {
            triplet(b, f64::from(o.margin), |hinges| hinges.iter().fold(0.0, |top, h| top.max(*h)))
        }
        Objective::SimClr(o) => {
            let scale = scale(o.temperature, scalars);
            let images = o
                .images
                .then(|| nt_xent(&b.images, &b.second_images, b.dim, scale, |p, q| b.kin_images(p, q)));
            let texts =
                o.texts.then(|| nt_xent(&b.texts, &b.second_texts, b.dim, scale, |p, q| b.kin_texts(p, q)));
            mean(images.into_iter().chain(texts))
        }
        Objective::Moco(o) => moco(b, o, scale(o.temperature, scalars)),
        Objective::MocoCross(o) => moco_cross(b, scale(o.temperature, scalars)),
        Objective::Cca(_) => panic!("solved in closed form"),
        Objective::Dcca(o) => dcca(b, o),
        Objective::Distance(o) => distance(b, o),
    }
}

fn across(b: &Batch, scale: f64, from_images: f64) -> f64 {
    let logit = |i, j| scale * b.cosine(i, j);
    from_images * cross_entropy(b.n(), b.m(), logit, |i, j| b.related(i, j))
        + (1.0 - from_images) * cross_entropy(b.m(), b.n(), |j, i| logit(i, j), |j, i| b.related(i, j))
}

fn soft_targets(b: &Batch, o: &SoftTargets, scale: f64) -> f64 {
    let label = |i: usize, j: usize| b.label_similarity[i * b.m() + j] / f64::from(o.target_temperature);
    let one_way = |anchors: usize, candidates: usize, flip: bool| {
        let cell = |a: usize, c: usize| if flip { (c, a) } else { (a, c) };
        let takes_part = |a: usize| -> Vec<(usize, usize)> {
            let cells = (0..candidates).map(|c| cell(a, c));
            cells.filter(|&(i, j)| b.related(i, j) != Relation::Neutral).collect()
        };
        mean((0..anchors).filter(|&a| !takes_part(a).is_empty()).map(|a| {
            let cells = takes_part(a);
            let answers: f64 = cells.iter().map(|&(i, j)| (scale * b.cosine(i, j)).exp()).sum();
            let targets: f64 = cells.iter().map(|&(i, j)| label(i, j).exp()).sum();
            let one = |&(i, j): &(usize, usize)| {
                -label(i, j).exp() / targets * ((scale * b.cosine(i, j)).exp() / answers).ln()
            };
            cells.iter().map(one).sum::<f64>()
        }))
    };
    (one_way(b.n(), b.m(), false) + one_way(b.m(), b.n(), true)) / 2.0
}

fn triplet(b: &Batch, margin: f64, put_together: impl Fn(&[f64]) -> f64) -> f64 {
    mean(b.pairs().into_iter().map(|(i, p)| {
        let hinge = |s: f64| (margin - b.cosine(i, p) + s).max(0.0);
        let texts = (0..b.m()).filter(|&j| b.related(i, j) == Relation::Negative);
        let images = (0..b.n()).filter(|&k| b.related(k, p) == Relation::Negative);
        let texts: Vec<f64> = texts.map(|j| hinge(b.cosine(i, j))).collect();
        let images: Vec<f64> = images.map(|k| hinge(b.cosine(k, p))).collect();
        put_together(&texts) + put_together(&images)
    }))
}

fn nt_xent(first: &[f64], second: &[f64], dim: usize, scale: f64, kin: impl Fn(usize, usize) -> bool) -> f64 {
    let n = first.len() / dim;
    let view = |v: usize| if v < n { row(first, v, dim) } else { row(second, v - n, dim) };
    let partner = |v: usize| (v + n) % (2 * n);
    let e = |v: usize, w: usize| (scale * cosine(view(v), view(w))).exp();
    mean((0..2 * n).map(|v| {
        let strangers = (0..2 * n).filter(|&w| !kin(v % n, w % n));
        let all = e(v, partner(v)) + strangers.map(|w| e(v, w)).sum::<f64>();
        -(e(v, partner(v)) / all).ln()
    }))
}

fn moco(b: &Batch, o: &Moco, scale: f64) -> f64 {
    let one = |queries: &[f64], keys: &[f64], ids: &[u64], queue: &[f64], queue_ids: &[u64]| {
        mean((0..ids.len()).map(|q| {
            let query = row(queries, q, b.dim);
            let own = (scale * cosine(query, row(keys, q, b.dim))).exp();
            let others = (0..queue_ids.len()).filter(|&r| queue_ids[r] != ids[q]);
            let negatives: f64 = others.map(|r| (scale * cosine(query, row(queue, r, b.dim))).exp()).sum();
            -(own / (own + negatives)).ln()
        }))
    };
    let images =
        o.images.then(|| one(&b.images, &b.key_images, &b.image_ids, &b.image_queue, &b.image_queue_ids));
    let texts = o.texts.then(|| one(&b.texts, &b.key_texts, &b.text_ids, &b.text_queue, &b.text_queue_ids));
    mean(images.into_iter().chain(texts))
}

fn dcca(b: &Batch, o: &Dcca) -> f64 {
    let pairs = b.pairs();
    let rows = |of: &[f64], at: &dyn Fn(&(usize, usize)) -> usize| -> Vec<Vec<f64>> {
        pairs.iter().map(|pair| row(of, at(pair), b.dim).to_vec()).collect()
    };
    let (x, y) = (rows(&b.images, &|p| p.0), rows(&b.texts, &|p| p.1));
    if pairs.len() < 2 {
        return 0.0;
    }
    let r = [f64::from(o.image_regularization), f64::from(o.text_regularization)];
    -canonical_correlations(&x, &y, r).iter().take(o.dims).sum::<f64>()
}

fn distance(b: &Batch, o: &Distance) -> f64 {
    let together = mean(b.pairs().into_iter().map(|(i, j)| 2.0 - 2.0 * b.cosine(i, j)));
    let uniformity = |rows: &[f64], kin: &dyn Fn(usize, usize) -> bool| {
        let count = rows.len() / b.dim;
        let pairs = (0..count).flat_map(|p| (p + 1..count).map(move |q| (p, q)));
        let squared = |(p, q)| 2.0 - 2.0 * cosine(row(rows, p, b.dim), row(rows, q, b.dim));
        let strangers: Vec<f64> =
            pairs.filter(|&(p, q)| !kin(p, q)).map(|pair| (-2.0 * squared(pair)).exp()).collect();
        if strangers.is_empty() { 0.0 } else { mean(strangers).ln() }
    };
    let spread =
        uniformity(&b.images, &|p, q| b.kin_images(p, q)) + uniformity(&b.texts, &|p, q| b.kin_texts(p, q));
    together + f64::from(o.uniformity) * spread / 2.0
}

fn moco_cross(b: &Batch, scale: f64) -> f64 {
    let (n, m, dim) = (b.n(), b.m(), b.dim);
    let from_images = cross_entropy(
        n,
        m + b.text_queue_ids.len(),
        |i, c| {
            let key = if c < m { row(&b.key_texts, c, dim) } else { row(&b.text_queue, c - m, dim) };
            scale * cosine(row(&b.images, i, dim), key)
        },
        |i, c| {
            if c < m {
                return b.related(i, c);
            }
            let id = b.text_queue_ids[c - m];
            let known = id == b.image_ids[i] || (0..m).any(|j| b.positive(i, j) && b.text_ids[j] == id);
            if known { Relation::Neutral } else { Relation::Negative }
        },
    );
    let from_texts = cross_entropy(
        m,
        n + b.image_queue_ids.len(),
        |j, c| {
            let key = if c < n { row(&b.key_images, c, dim) } else { row(&b.image_queue, c - n, dim) };
            scale * cosine(row(&b.texts, j, dim), key)
        },
        |j, c| {
            if c < n {
                return b.related(c, j);
            }
            let id = b.image_queue_ids[c - n];
            let known = id == b.text_ids[j] || (0..n).any(|i| b.positive(i, j) && b.image_ids[i] == id);
            if known { Relation::Neutral } else { Relation::Negative }
        },
    );
    (from_images + from_texts) / 2.0
}

type Matrix = Vec<Vec<f64>>;

fn times(a: &Matrix, b: &Matrix) -> Matrix {
    let column = |j: usize| b.iter().map(move |row| row[j]);
    a.iter()
        .map(|row| (0..b[0].len()).map(|j| row.iter().zip(column(j)).map(|(a, b)| a * b).sum()).collect())
        .collect()
}

fn transpose(a: &Matrix) -> Matrix {
    (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
}

/// Eigenvalues and eigenvectors, as columns, of a symmetric matrix by Jacobi's rotations.
fn jacobi(a: &Matrix) -> (Vec<f64>, Matrix) {
    let n = a.len();
    let mut a = a.clone();
    let mut v: Matrix = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..50 {
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q].abs() < 1e-300 {
                    continue;
                }
                let theta = 0.5 * (2.0 * a[p][q]).atan2(a[q][q] - a[p][p]);
                let (s, c) = theta.sin_cos();
                for m in [&mut a, &mut v] {
                    for row in m.iter_mut() {
                        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                    }
                }
                let (above, below) = a.split_at_mut(q);
                for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
            }
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), v)
}

/// `s^-1/2` of a symmetric matrix.
fn inverse_root(s: &Matrix) -> Matrix {
    let (values, vectors) = jacobi(s);
    let scaled: Matrix = vectors
        .iter()
        .map(|row| row.iter().zip(&values).map(|(x, value)| x / value.sqrt()).collect())
        .collect();
    times(&scaled, &transpose(&vectors))
}

/// The singular values of `(S11 + r1 I)^-1/2 S12 (S22 + r2 I)^-1/2`, largest first.
pub(super) fn canonical_correlations(x: &Matrix, y: &Matrix, [r1, r2]: [f64; 2]) -> Vec<f64> {
    let n = x.len() as f64;
    let centred = |rows: &Matrix| -> Matrix {
        let means: Vec<f64> = transpose(rows).iter().map(|column| column.iter().sum::<f64>() / n).collect();
        rows.iter().map(|row| row.iter().zip(&means).map(|(x, m)| x - m).collect()).collect()
    };
    let covariance = |a: &Matrix, b: &Matrix, r: f64| -> Matrix {
        let mut s = times(&transpose(a), b);
        for (i, row) in s.iter_mut().enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                *value = *value / (n - 1.0) + if i == j { r } else { 0.0 };
            }
        }
        s
    };
    let (x, y) = (centred(x), centred(y));
    let t = times(
        &times(&inverse_root(&covariance(&x, &x, r1)), &covariance(&x, &y, 0.0)),
        &inverse_root(&covariance(&y, &y, r2)),
    );
    let (squares, _) = jacobi(&times(&t, &transpose(&t)));
    let mut values: Vec<f64> = squares.iter().map(|s| s.max(0.0).sqrt()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values.truncate(y[0].len());
    values
}
