//! The generated wire types of diptych.v1.
