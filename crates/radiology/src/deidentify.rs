//! De-identification: of DICOM data sets and of the text of reports.
