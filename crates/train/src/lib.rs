//! Contrastive objectives, recipes, and the loop that turns pairs into a checkpoint.
