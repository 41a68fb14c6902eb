//! The layouts that are read.
//!
//! Owns: their closed list and their names. How they are told apart is in `detect`, what they say in a module
//! each.

use std::fmt;
use std::str::FromStr;

/// How the files of a source are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Images in folders, texts of the same name beside them.
    Folder,
    /// One JSON object per line.
    JsonLines,
    /// A table as text: CSV, TSV and their kin.
    Csv,
    /// A table as Parquet, images in it or beside it.
    Parquet,
    /// Tar archives of samples.
    WebDataset,
    /// Vectors and metadata: nothing to be encoded.
    ClipRetrieval,
    /// MIMIC-CXR-JPG: patients, studies, images; reports and tables beside.
    MimicCxr,
    /// OpenI: a report per XML file.
    OpenI,
    /// The Indiana University reports and projections as CSV.
    OpenICsv,
    /// ROCO and ROCOv2: captions of figures.
    Roco,
    /// A tree of DICOM files.
    Dicom,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Folder,
        Self::JsonLines,
        Self::Csv,
        Self::Parquet,
        Self::WebDataset,
        Self::ClipRetrieval,
        Self::MimicCxr,
        Self::OpenI,
        Self::OpenICsv,
        Self::Roco,
        Self::Dicom,
    ];

    /// Its name, such as `webdataset`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::WebDataset => "webdataset",
            Self::ClipRetrieval => "clip-retrieval",
            Self::MimicCxr => "mimic-cxr",
            Self::OpenI => "openi",
            Self::OpenICsv => "openi-csv",
            Self::Roco => "roco",
            Self::Dicom => "dicom",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let other = match name {
            "tsv" => Some(Self::Csv),
            "tar" => Some(Self::WebDataset),
            "mimic-cxr-jpg" => Some(Self::MimicCxr),
            "iu-xray" => Some(Self::OpenICsv),
            _ => None,
        };
        other.or_else(|| Self::ALL.into_iter().find(|layout| layout.as_str() == name)).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|layout| layout.as_str()).collect();
            format!("no layout of that name; there are {}", names.join(", "))
        })
    }
}
