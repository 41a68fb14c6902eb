//! Seeded synthetic chest radiographs with reports and labels.
