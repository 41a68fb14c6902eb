//! Findings: what a report says is there, absent or uncertain.
