//! DICOM files: what is in them, and their pixels as pictures.
