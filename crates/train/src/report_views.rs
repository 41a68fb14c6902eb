//! Which texts one report offers to a training step.
//!
//! Owns: splitting a text into its impression and its sentences, so that short queries such as
//! "large left pleural effusion" are trained for as well as whole reports. Deliberately absent:
//! understanding the sentences.

/// The texts of one pair, by kind. `whole` is never empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Views<T> {
    /// Whole texts.
    pub whole: Vec<T>,
    /// What stands behind `IMPRESSION:`.
    pub impressions: Vec<T>,
    /// Single sentences.
    pub sentences: Vec<T>,
}

impl Views<String> {
    /// All views of the texts of one pair.
    pub fn of(texts: &[String]) -> Self {
        let mut views = Self::default();
        for text in texts {
            views.whole.push(text.clone());
            let (findings, impression) = match text.split_once("IMPRESSION:") {
                Some((findings, impression)) => (findings, Some(impression.trim())),
                None => (text.as_str(), None),
            };
            views.impressions.extend(impression.filter(|s| !s.is_empty()).map(str::to_owned));
            let findings = findings.trim().trim_start_matches("FINDINGS:");
            let sentences: Vec<String> = sentences(findings).collect();
            if sentences.len() > 1 || impression.is_some() {
                views.sentences.extend(sentences);
            }
        }
        views
    }
}

impl<T> Views<T> {
    /// The same views with every text replaced.
    pub fn map<'a, U>(&'a self, mut f: impl FnMut(&'a T) -> U) -> Views<U> {
        let mut each = |texts: &'a [T]| texts.iter().map(&mut f).collect();
        Views {
            whole: each(&self.whole),
            impressions: each(&self.impressions),
            sentences: each(&self.sentences),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.whole.iter().chain(&self.impressions).chain(&self.sentences)
    }
}

/// The sentences of a text: runs that end in a full stop before white space or the end.
fn sentences(text: &str) -> impl Iterator<Item = String> {
    text.split(". ")
        .map(|s| s.trim().trim_end_matches('.'))
        .filter(|s| !s.is_empty())
        .map(|s| format!("{s}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_offers_itself_its_impression_and_its_sentences() {
        let report = "FINDINGS: PA view. Small 2.5 cm nodule. IMPRESSION: Nodule.".to_owned();
        let views = Views::of(std::slice::from_ref(&report));
        assert_eq!(views.whole, [report]);
        assert_eq!(views.impressions, ["Nodule."]);
        assert_eq!(views.sentences, ["PA view.", "Small 2.5 cm nodule."]);
    }

    #[test]
    fn a_caption_offers_itself() {
        let views = Views::of(&["A dog on a beach.".to_owned()]);
        assert_eq!((views.whole.len(), views.impressions.len(), views.sentences.len()), (1, 0, 0));
    }
}
