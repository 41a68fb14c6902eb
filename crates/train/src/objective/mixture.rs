//! Several objectives at once.
//!
//! Owns: the weighted sum of objectives and the three ways to weigh it, with the running means that one
//! of them needs. Deliberately absent: who clamps and steps the scalars, and files.

use serde::{Deserialize, Serialize};

use super::views::{Gradients, Views};
use super::{Needs, Objective, ObjectiveError, Scalar};

/// An objective and its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// Above 0.
    #[serde(default = "one")]
    pub weight: f32,
    /// What is weighed.
    #[serde(flatten)]
    pub objective: Objective,
}

fn one() -> f32 {
    1.0
}

/// How the terms `L_k` with weights `w_k` are put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// `sum w_k L_k`.
    #[default]
    Fixed,
    /// `sum w_k L_k / m_k` with `m_k` the running mean of `|L_k|`, a constant to the gradient: terms of
    /// different size pull alike.
    Normalized,
    /// `sum w_k (exp(-s_k) L_k + s_k) / 2` with learned `s_k`, the logarithm of a variance (Kendall et
    /// al. 2018). Only for losses that cannot fall below zero.
    Uncertainty,
}

/// The memory of [`Weighting::Normalized`]; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MixtureState {
    /// For every term the sum of `|L|`, older ones discounted.
    sums: Vec<f64>,
    /// The sum of the discounts.
    count: f64,
}

/// A weighted sum of objectives.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    terms: Vec<Term>,
    weighting: Weighting,
    state: MixtureState,
}

/// What one term of a mixture came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TermLoss {
    /// See [`Objective::kind`].
    pub kind: &'static str,
    /// Its own value, without any weight.
    pub loss: f32,
    /// What its gradient was multiplied by.
    pub factor: f32,
}

/// The value of a mixture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mixed {
    /// Of the sum; scalars in the order of [`Mixture::scalars`].
    pub gradients: Gradients,
    /// Term by term.
    pub terms: Vec<TermLoss>,
}

impl Mixture {
    /// Weight of the past, per step, in the running means.
    const DISCOUNT: f64 = 0.99;
    /// A loss that is nearly zero is not blown up further than by this.
    const SMALLEST_MEAN: f64 = 1e-3;
    /// Bound of the learned `s_k`.
    const LOG_VARIANCE_MAX: f32 = 10.0;

    /// Whether both sides are brought to agree and yet each keeps coordinates of its own.
    pub fn leaves_sides_apart(&self) -> bool {
        let mut objectives = self.terms.iter().map(|term| &term.objective);
        objectives.clone().any(|o| matches!(o, Objective::Dcca(_)))
            && !objectives.any(Objective::compares_sides)
    }

    /// A sum of at least one term, each kind at most once.
    ///
    /// # Errors
    /// If an option or weight is out of bounds, or the terms cannot be put together this way.
    pub fn new(terms: Vec<Term>, weighting: Weighting) -> Result<Self, ObjectiveError> {
        let refuse = |reason: String| Err(ObjectiveError::Mixture { reason });
        if terms.is_empty() {
            return refuse("there is none; name at least one".into());
        }
        for (k, term) in terms.iter().enumerate() {
            term.objective.validate()?;
            let kind = term.objective.kind();
            if !(term.weight > 0.0 && term.weight.is_finite()) {
                let (found, allowed) = (term.weight, "any number above 0");
                return Err(ObjectiveError::Option { kind, option: "weight", found, allowed });
            }
            if terms[..k].iter().any(|earlier| earlier.objective.kind() == kind) {
                return refuse(format!("`{kind}` is named twice; name it once with the sum of the weights"));
            }
            if let Objective::Cca(_) = term.objective {
                return Err(ObjectiveError::ClosedForm);
            }
            if weighting == Weighting::Uncertainty && !term.objective.is_nonnegative() {
                return refuse(format!(
                    "`{kind}` can fall below zero, which drives its learned weight to infinity; choose the weighting `fixed` or `normalized`"
                ));
            }
        }
        let state = MixtureState { sums: vec![0.0; terms.len()], count: 0.0 };
        Ok(Self { terms, weighting, state })
    }

    /// The terms, in order.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// What a checkpoint has to keep.
    pub fn state(&self) -> &MixtureState {
        &self.state
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// If it was written with another number of terms, or holds no running means.
    pub fn restore(&mut self, state: MixtureState) -> Result<(), ObjectiveError> {
        let sound = |x: &f64| x.is_finite() && *x >= 0.0;
        if state.sums.len() != self.terms.len() || !state.sums.iter().all(sound) || !sound(&state.count) {
            let reason = format!("the saved state is not one of {} terms; restart", self.terms.len());
            return Err(ObjectiveError::Mixture { reason });
        }
        self.state = state;
        Ok(())
    }

    /// What any term needs.
    pub fn needs(&self) -> Needs {
        self.terms.iter().fold(Needs::default(), |needs, term| needs.or(term.objective.needs()))
    }

    /// The learned scalars, term by term, named `kind.name`; with [`Weighting::Uncertainty`] each term's
    /// own are followed by its `log_variance`.
    pub fn scalars(&self) -> Vec<Scalar> {
        let mut scalars = Vec::new();
        for term in &self.terms {
            let mut own = term.objective.scalars();
            if self.weighting == Weighting::Uncertainty {
                let (low, high) = (-Self::LOG_VARIANCE_MAX, Self::LOG_VARIANCE_MAX);
                own.push(Scalar { name: "log_variance".into(), start: 0.0, low, high });
            }
            let kind = term.objective.kind();
            scalars.extend(own.into_iter().map(|s| Scalar { name: format!("{kind}.{}", s.name), ..s }));
        }
        scalars
    }

    /// The value and gradients of the sum. The running means take this batch into account, but are only
    /// kept by [`Mixture::observe`].
    pub(crate) fn evaluate(&self, views: &Views<'_>, scalars: &[f32]) -> Result<Mixed, ObjectiveError> {
        let expected = self.scalars().len();
        if scalars.len() != expected {
            return Err(ObjectiveError::Scalars { expected, found: scalars.len() });
        }
        let mut gradients = Gradients::zeros(views, 0);
        let mut terms = Vec::with_capacity(self.terms.len());
        let mut total = 0.0;
        let mut rest = scalars;
        for (k, term) in self.terms.iter().enumerate() {
            let (own, after) = rest.split_at(term.objective.scalars().len());
            rest = after;
            let of_term = term.objective.evaluate(views, own)?;
            let (weight, loss) = (f64::from(term.weight), f64::from(of_term.loss));
            let mut d_log_variance = None;
            let factor = match self.weighting {
                Weighting::Fixed => weight,
                Weighting::Normalized => weight / self.mean(k, loss).max(Self::SMALLEST_MEAN),
                Weighting::Uncertainty => {
                    let log_variance = f64::from(rest[0]);
                    rest = &rest[1..];
                    let half = 0.5 * weight * (-log_variance).exp();
                    total += 0.5 * weight * log_variance;
                    d_log_variance = Some((0.5 * weight - half * loss) as f32);
                    half
                }
            };
            total += factor * loss;
            gradients.add_rows(&of_term, factor as f32);
            gradients.scalars.extend(of_term.scalars.iter().map(|d| factor as f32 * d));
            gradients.scalars.extend(d_log_variance);
            terms.push(TermLoss { kind: term.objective.kind(), loss: of_term.loss, factor: factor as f32 });
        }
        gradients.loss = total as f32;
        Ok(Mixed { gradients, terms })
    }

    /// Keeps the losses of a training step in the running means. Losses that are not finite are not
    /// kept.
    pub(crate) fn observe(&mut self, mixed: &Mixed) {
        if mixed.terms.iter().any(|term| !term.loss.is_finite()) {
            return;
        }
        for (sum, term) in self.state.sums.iter_mut().zip(&mixed.terms) {
            *sum = Self::DISCOUNT * *sum + f64::from(term.loss.abs());
        }
        self.state.count = Self::DISCOUNT * self.state.count + 1.0;
    }

    /// The running mean of a term's magnitude, this batch included.
    fn mean(&self, term: usize, loss: f64) -> f64 {
        (Self::DISCOUNT * self.state.sums[term] + loss.abs()) / (Self::DISCOUNT * self.state.count + 1.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{CcaOptions, Dcca, Distance, InfoNce, Relation, Siglip, SimClr, Triplet};
    use super::*;

    const DIM: usize = 3;

    /// Two terms with scalars of their own, and one without.
    fn terms() -> Vec<Term> {
        let term = |weight, objective| Term { weight, objective };
        vec![
            term(2.0, Objective::InfoNce(InfoNce::default())),
            term(0.5, Objective::Vse0(Triplet { margin: 0.4 })),
            term(1.0, Objective::Siglip(Siglip { temperature: 0.5, bias: -1.0 })),
        ]
    }

    struct Pairs {
        images: Vec<f32>,
        texts: Vec<f32>,
        relation: Vec<Relation>,
    }

    fn pairs(seed: usize) -> Pairs {
        let wave = |at: usize| ((at * 7 + seed * 13) as f32).sin();
        let relation = |at: usize| if at / 4 == at % 4 { Relation::Positive } else { Relation::Negative };
        Pairs {
            images: (0..4 * DIM).map(wave).collect(),
            texts: (0..4 * DIM).map(|at| wave(at + 100)).collect(),
            relation: (0..16).map(relation).collect(),
        }
    }

    impl Pairs {
        fn views(&self) -> Views<'_> {
            Views::pairs(DIM, &self.images, &self.texts, &self.relation)
        }
    }

    fn start(mixture: &Mixture) -> Vec<f32> {
        mixture.scalars().iter().map(|s| s.start).collect()
    }

    /// Each term on its own, on its own scalars.
    fn alone(views: &Views<'_>) -> Vec<Gradients> {
        let value = |term: &Term| {
            let scalars: Vec<f32> = term.objective.scalars().iter().map(|s| s.start).collect();
            term.objective.evaluate(views, &scalars).unwrap()
        };
        terms().iter().map(value).collect()
    }

    fn close(a: f32, b: f32) -> bool {
        (a - b).abs() < 1e-5 * b.abs().max(1.0)
    }

    #[test]
    fn fixed_weights_give_the_weighted_sum() {
        let mixture = Mixture::new(terms(), Weighting::Fixed).unwrap();
        let names: Vec<_> = mixture.scalars().into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["info-nce.logit_scale", "siglip.logit_scale", "siglip.logit_bias"]);
        let pairs = pairs(1);
        let mixed = mixture.evaluate(&pairs.views(), &start(&mixture)).unwrap();
        let alone = alone(&pairs.views());
        let sum = |of: &dyn Fn(&Gradients) -> f32| 2.0 * of(&alone[0]) + 0.5 * of(&alone[1]) + of(&alone[2]);
        assert!(close(mixed.gradients.loss, sum(&|g| g.loss)));
        for at in 0..4 * DIM {
            assert!(close(mixed.gradients.images[at], sum(&|g| g.images[at])));
            assert!(close(mixed.gradients.texts[at], sum(&|g| g.texts[at])));
        }
        let scalars = [2.0 * alone[0].scalars[0], alone[2].scalars[0], alone[2].scalars[1]];
        assert_eq!(mixed.gradients.scalars, scalars);
        let of_terms: Vec<_> = mixed.terms.iter().map(|t| (t.kind, t.loss, t.factor)).collect();
        let expected = [("info-nce", 2.0), ("vse0", 0.5), ("siglip", 1.0)];
        let expected: Vec<_> = expected.iter().zip(&alone).map(|(&(k, w), g)| (k, g.loss, w)).collect();
        assert_eq!(of_terms, expected);
    }

    #[test]
    fn normalized_terms_are_divided_by_their_running_means() {
        let mut mixture = Mixture::new(terms(), Weighting::Normalized).unwrap();
        let scalars = start(&mixture);
        let first = pairs(1);
        let mixed = mixture.evaluate(&first.views(), &scalars).unwrap();
        // Each term is 1 in its own measure at first.
        assert!(close(mixed.gradients.loss, 2.0 + 0.5 + 1.0), "{}", mixed.gradients.loss);
        let before = alone(&first.views());
        for (term, alone) in mixed.terms.iter().zip(&before) {
            assert!(term.loss == alone.loss && alone.loss > 0.01);
        }
        // Looking alone changes nothing.
        assert_eq!(mixture.evaluate(&first.views(), &scalars).unwrap(), mixed);
        mixture.observe(&mixed);
        let second = pairs(2);
        let mixed = mixture.evaluate(&second.views(), &scalars).unwrap();
        let after = alone(&second.views());
        for (((term, weight), before), after) in
            mixed.terms.iter().zip([2.0, 0.5, 1.0]).zip(&before).zip(&after)
        {
            let mean = (0.99 * before.loss + after.loss) / 1.99;
            assert!(close(term.factor, weight / mean), "{term:?} {mean}");
        }
        // The state is all a checkpoint needs.
        let mut restored = Mixture::new(terms(), Weighting::Normalized).unwrap();
        let saved = serde_json::to_string(mixture.state()).unwrap();
        restored.restore(serde_json::from_str(&saved).unwrap()).unwrap();
        assert_eq!(restored.evaluate(&second.views(), &scalars).unwrap(), mixed);
        let other = Mixture::new(terms()[..2].to_vec(), Weighting::Normalized).unwrap();
        assert!(restored.restore(other.state().clone()).is_err());
    }

    #[test]
    fn losses_that_are_not_finite_do_not_enter_the_means() {
        let mut mixture = Mixture::new(terms(), Weighting::Normalized).unwrap();
        let mut pairs = pairs(1);
        pairs.images[..DIM].fill(0.0);
        let mixed = mixture.evaluate(&pairs.views(), &start(&mixture)).unwrap();
        assert!(mixed.gradients.loss.is_nan());
        let before = mixture.state().clone();
        mixture.observe(&mixed);
        assert_eq!(mixture.state(), &before);
    }

    #[test]
    fn uncertainty_is_the_equation_and_its_slope() {
        let mixture = Mixture::new(terms(), Weighting::Uncertainty).unwrap();
        let names: Vec<_> = mixture.scalars().into_iter().map(|s| s.name).collect();
        let expected = [
            "info-nce.logit_scale",
            "info-nce.log_variance",
            "vse0.log_variance",
            "siglip.logit_scale",
            "siglip.logit_bias",
            "siglip.log_variance",
        ];
        assert_eq!(names, expected);
        let pairs = pairs(3);
        let alone = alone(&pairs.views());
        let mut scalars = start(&mixture);
        let s = [0.4f64, -0.7, 1.1];
        let places = [1, 2, 5];
        places.iter().zip(s).for_each(|(&at, s)| scalars[at] = s as f32);
        let mixed = mixture.evaluate(&pairs.views(), &scalars).unwrap();
        let sum = |s: [f64; 3]| -> f64 {
            let terms = [2.0, 0.5, 1.0].into_iter().zip(s).zip(&alone);
            terms.map(|((w, s), g)| w * ((-s).exp() * f64::from(g.loss) + s) / 2.0).sum()
        };
        assert!((f64::from(mixed.gradients.loss) - sum(s)).abs() < 1e-5);
        for (k, at) in places.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut s = s;
                s[k] += by;
                sum(s)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((f64::from(mixed.gradients.scalars[at]) - slope).abs() < 1e-5, "term {k}");
        }
        let factors = [(-0.4f32).exp(), 0.25 * 0.7f32.exp(), 0.5 * (-1.1f32).exp()];
        for at in 0..4 * DIM {
            let expected: f32 = factors.iter().zip(&alone).map(|(f, g)| f * g.images[at]).sum();
            assert!(close(mixed.gradients.images[at], expected));
        }
        assert!(close(mixed.gradients.scalars[0], factors[0] * alone[0].scalars[0]));
        assert!(close(mixed.gradients.scalars[4], factors[2] * alone[2].scalars[1]));
    }

    #[test]
    fn what_cannot_be_mixed_is_refused() {
        let one = |objective| vec![Term { weight: 1.0, objective }];
        assert!(Mixture::new(vec![], Weighting::Fixed).is_err());
        assert!(Mixture::new([terms(), terms()].concat(), Weighting::Fixed).is_err());
        let cca = one(Objective::Cca(CcaOptions::default()));
        assert_eq!(Mixture::new(cca, Weighting::Fixed), Err(ObjectiveError::ClosedForm));
        for objective in [Objective::Dcca(Dcca::default()), Objective::Distance(Distance { uniformity: 1.0 })]
        {
            assert!(Mixture::new(one(objective.clone()), Weighting::Uncertainty).is_err());
            assert!(Mixture::new(one(objective), Weighting::Normalized).is_ok());
        }
        assert!(Mixture::new(one(Objective::Distance(Distance::default())), Weighting::Uncertainty).is_ok());
        for weight in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let objective = Objective::InfoNce(InfoNce::default());
            assert!(Mixture::new(vec![Term { weight, objective }], Weighting::Fixed).is_err());
        }
        let triplet = one(Objective::Vse0(Triplet { margin: -1.0 }));
        assert!(Mixture::new(triplet, Weighting::Fixed).is_err());
        let mixture = Mixture::new(terms(), Weighting::Fixed).unwrap();
        let refused = mixture.evaluate(&pairs(1).views(), &[0.0]);
        assert_eq!(refused, Err(ObjectiveError::Scalars { expected: 3, found: 1 }));
    }

    #[test]
    fn a_mixture_needs_what_any_term_needs() {
        let mut terms = terms();
        terms.push(Term { weight: 1.0, objective: Objective::SimClr(SimClr::default()) });
        let mixture = Mixture::new(terms, Weighting::Fixed).unwrap();
        assert_eq!(mixture.needs(), Needs { second_images: true, ..Needs::default() });
    }
}
