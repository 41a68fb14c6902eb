//! What radiology archives are made of, as the rest of Diptych wants it.
//!
//! Owns: DICOM files to pictures and attributes (`dicom`), what identifies a patient and how it is removed
//! (`deidentify`), reports to sections and sentences (`report`), and the findings that are said to be there,
//! absent or uncertain (`findings`). Foreign DICOM crates are named here and nowhere else.
//! Deliberately absent: models, stores, layouts of archives other than the DICOM tree, and any judgement of
//! what a picture shows.

pub mod deidentify;
pub mod dicom;
pub mod findings;
pub mod report;
