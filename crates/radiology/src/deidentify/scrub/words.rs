//! Words of reports that begin with a capital letter and are no names, and words that begin the next field
//! of a header. Deliberately absent: a dictionary of names.

/// Whether a word is one of reports, whatever its case.
pub(in crate::deidentify) fn is_common(word: &str) -> bool {
    has(COMMON, word)
}

/// Whether a word begins another field of a header.
pub(super) fn is_field(word: &str) -> bool {
    has(FIELDS, word)
}

fn has(words: &[&str], word: &str) -> bool {
    let lower = word.to_lowercase();
    let stem = lower.strip_suffix("'s").unwrap_or(&lower);
    words.binary_search(&stem).is_ok()
}

#[rustfmt::skip]
static COMMON: &[&str] = &[
    "a", "abdomen", "abnormal", "abnormality", "about", "above", "absent", "access", "accession",
    "according", "account", "acute", "addendum", "additional", "address", "adequate", "admission",
    "admitting", "advised", "after", "again", "age", "aged", "all", "allergy", "also", "although", "am",
    "an", "and", "anesthesia", "aneurysm", "angiography", "ankle", "anterior", "any", "aorta", "aortic",
    "ap", "apex", "apical", "appear", "appearance", "appears", "appropriate", "april", "are", "area",
    "arm", "arrival", "arterial", "as", "assess", "assessment", "at", "atelectasis", "atrial",
    "attendant", "attending", "august", "available", "axial", "back", "barium", "base", "based", "bases",
    "basilar", "be", "because", "been", "before", "behind", "being", "below", "beside", "best", "between",
    "bilateral", "biopsy", "birth", "blood", "body", "bone", "bones", "both", "bowel", "brain", "breast",
    "brief", "bronchial", "brown", "but", "by", "calcification", "calcified", "called", "caller", "can",
    "cardiac", "cardiologist", "cardiology", "cardiomediastinal", "cardiomegaly", "care", "carina",
    "case", "catheter", "cavity", "cell", "center", "central", "change", "changes", "chart", "check",
    "chest", "chief", "child", "clear", "clearance", "clinic", "clinical", "close", "code",
    "communicated", "compared", "comparison", "complaint", "complete", "concern", "conclusion",
    "confirmed", "congestion", "consider", "consistent", "consolidation", "consultant", "consulted",
    "contact", "contour", "contrast", "copd", "correlate", "correlation", "cough", "could", "covid", "cr",
    "critical", "ct", "current", "cxr", "daily", "data", "date", "day", "days", "december",
    "degenerative", "department", "described", "designated", "detail", "diagnosis", "diaphragm",
    "dictated", "dictation", "diffuse", "digital", "direct", "discharge", "discussed", "disease", "dist",
    "distal", "do", "dob", "doctor", "does", "done", "double", "dr", "drain", "due", "dyspnea", "early",
    "ecg", "ed", "edema", "effusion", "effusions", "either", "ekg", "elderly", "electronic",
    "electronically", "elevated", "else", "emergency", "emphysema", "encounter", "end", "enlarged",
    "entered", "er", "et", "evaluate", "evaluation", "evening", "evidence", "exam", "examination",
    "examined", "except", "exclude", "experienced", "exposure", "ext", "eye", "faint", "family", "fax",
    "february", "feeding", "fellow", "female", "fever", "few", "fibrosis", "field", "film", "films",
    "final", "finding", "findings", "first", "firstname", "five", "flu", "fluid", "focal", "follow",
    "following", "followup", "foot", "for", "forename", "fracture", "fractures", "free", "friday", "from",
    "frontal", "full", "further", "gastric", "gender", "general", "given", "good", "grade", "great",
    "ground", "had", "hand", "hard", "has", "have", "he", "head", "healed", "healing", "health", "heart",
    "height", "hematology", "hemidiaphragm", "hemithorax", "hemorrhage", "her", "here", "hernia", "high",
    "hilar", "hilum", "him", "hip", "his", "history", "home", "hospice", "hospital", "hours", "human",
    "hyperinflated", "hyperinflation", "hypertension", "icu", "id", "if", "image", "images", "imaging",
    "immediate", "implant", "impression", "in", "incidental", "including", "increased", "indication",
    "indications", "infection", "inferior", "infiltrate", "infirmary", "inflammatory", "information",
    "initial", "injury", "insertion", "inspiration", "instead", "insurance", "intact", "intern",
    "internal", "internist", "interpreted", "interpreting", "interstitial", "interval", "interventional",
    "into", "is", "isolation", "it", "its", "iv", "january", "joint", "july", "june", "junior", "just",
    "kidney", "knee", "known", "lab", "laboratory", "large", "last", "lastname", "late", "lateral",
    "lead", "left", "lesion", "less", "level", "life", "like", "likely", "limit", "limited", "limits",
    "line", "lines", "little", "liver", "lobar", "lobe", "location", "long", "lordotic", "low", "lower",
    "lung", "lungs", "lymph", "made", "magnetic", "mail", "main", "major", "male", "man", "management",
    "manager", "many", "march", "margin", "marked", "mass", "may", "md", "mean", "measures", "medial",
    "mediastinal", "mediastinum", "medical", "medicare", "medicine", "medium", "mental", "metastatic",
    "mid", "middle", "mild", "mildly", "minimal", "minor", "mm", "mobile", "moderate", "monday", "month",
    "months", "more", "morning", "mother", "mr", "mri", "mrn", "ms", "much", "multiple", "must", "name",
    "near", "neck", "negative", "neonatal", "neurology", "new", "next", "nicu", "night", "nipple", "no",
    "nodular", "nodule", "nodules", "none", "nor", "normal", "not", "note", "noted", "notes", "november",
    "now", "number", "nurse", "nursing", "obese", "obscured", "observation", "obstruction", "october",
    "of", "office", "old", "older", "on", "once", "oncology", "one", "only", "opacities", "opacity",
    "open", "operative", "operator", "opinion", "or", "order", "ordered", "original", "orthopedic",
    "osseous", "other", "otherwise", "our", "out", "outpatient", "outside", "over", "pa", "page", "paged",
    "pager", "pain", "parent", "patchy", "pathology", "patient", "patients", "pediatric", "pending",
    "performed", "pericardial", "peripheral", "person", "pharmacy", "phone", "phrenic", "physician",
    "picc", "picu", "placement", "plain", "please", "pleural", "pneumonia", "pneumothorax", "poor",
    "port", "portable", "positive", "possible", "post", "posterior", "posteroanterior", "practice",
    "preliminary", "present", "pressure", "previous", "primary", "prior", "probable", "probably",
    "procedure", "process", "progress", "projection", "prominent", "protocol", "provider", "proximal",
    "psychiatric", "pulmonary", "pulmonology", "question", "quickly", "quite", "radiograph",
    "radiographer", "radiographic", "radiographs", "radiological", "radiologist", "radiology", "rapid",
    "re", "read", "reader", "reading", "reason", "reasons", "recent", "recommend", "recommendation",
    "recommendations", "recommended", "record", "red", "reference", "referral", "referred", "referring",
    "regarding", "region", "registered", "rehabilitation", "related", "renal", "repeat", "replaced",
    "report", "reported", "reports", "request", "requested", "requesting", "resection", "resident",
    "residual", "resolved", "resp", "respiratory", "responsible", "rest", "result", "results",
    "resuscitation", "retired", "review", "reviewed", "rheumatology", "rib", "ribs", "right", "rn",
    "room", "round", "routine", "same", "satellite", "saturday", "say", "scan", "scar", "scarring",
    "scoliosis", "screening", "second", "secretary", "section", "see", "seen", "senior", "sent",
    "september", "series", "service", "severe", "sex", "shadow", "sharp", "she", "shift", "short",
    "shortness", "should", "shoulder", "show", "shown", "shows", "shunt", "side", "sign", "signed",
    "significant", "silhouette", "similar", "since", "single", "sinus", "sister", "site", "size", "skin",
    "slight", "slightly", "slow", "small", "so", "social", "soft", "some", "sort", "specialist", "spine",
    "spoke", "spouse", "stable", "staff", "standard", "state", "status", "still", "stomach", "stone",
    "strong", "structure", "structures", "student", "study", "subclavian", "subcutaneous", "subtle",
    "suggest", "suggested", "sunday", "superior", "supine", "support", "surgeon", "surgery", "surgical",
    "surname", "suspected", "swelling", "symptoms", "system", "systemic", "tamponade", "team",
    "technician", "technique", "technologist", "tele", "telephone", "temperature", "term", "test", "than",
    "that", "the", "their", "them", "then", "therapist", "therapy", "there", "therefore", "these", "they",
    "thickening", "third", "this", "thoracic", "thoracotomy", "thorax", "three", "throat", "through",
    "thursday", "thyroid", "time", "tip", "tissue", "tissues", "to", "today", "tomorrow", "tonight",
    "top", "trachea", "tracheostomy", "transcribed", "transcription", "transfer", "transplant", "trauma",
    "triage", "tube", "tuberculosis", "tubes", "tuesday", "two", "type", "ultrasound", "unable",
    "uncertain", "unchanged", "under", "underlying", "unit", "unknown", "unlikely", "unremarkable",
    "until", "up", "upper", "upright", "urgent", "urology", "us", "use", "valve", "vascular",
    "vasculature", "vein", "venous", "ventricle", "ventricular", "verified", "vertebral", "very",
    "veteran", "veterans", "via", "view", "views", "visible", "vision", "visit", "visiting", "visualized",
    "volume", "volumes", "ward", "was", "we", "weakness", "wednesday", "week", "weeks", "weight", "well",
    "were", "wet", "what", "when", "where", "whether", "which", "while", "white", "who", "whole", "whom",
    "wide", "widened", "will", "wire", "with", "within", "without", "woman", "women", "womens", "wood",
    "work", "would", "wound", "wrist", "x", "xray", "year", "years", "yes", "yesterday", "yo", "young",
    "your",
];

#[rustfmt::skip]
static FIELDS: &[&str] = &[
    "accession", "account", "acct", "address", "age", "bed", "birth", "date", "dob", "encounter", "exam",
    "examination", "fax", "gender", "history", "hospital", "id", "indication", "institution", "location",
    "medical", "mrn", "number", "ordering", "patient", "phone", "physician", "procedure", "referring",
    "report", "requesting", "room", "sex", "ssn", "study", "tel", "visit",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_sorted_so_that_they_are_found() {
        for words in [COMMON, FIELDS] {
            assert!(words.windows(2).all(|pair| pair[0] < pair[1]));
        }
        assert!(is_common("Lungs") && is_common("PATIENT'S") && !is_common("Kerley"));
    }
}
