//! Words that are looked for in texts.

use diptych_core::{Fusion, Lexical};

use crate::v1 as wire;

/// Words as they came over the wire; fused by ranks where that is not said.
pub fn lexical_from_wire(lexical: wire::LexicalQuery) -> Lexical {
    use wire::lexical_query::Fusion as Wire;
    let fusion = match lexical.fusion {
        None => Fusion::default(),
        Some(Wire::RankFusion(ranks)) => Fusion::Rrf { k: ranks.k.unwrap_or(Fusion::RANK_CONSTANT) },
        Some(Wire::WeightedFusion(weighted)) => Fusion::Weighted { lexical: weighted.lexical },
    };
    Lexical { text: lexical.text, fusion }
}

/// Words as they go over the wire.
pub fn lexical_to_wire(lexical: &Lexical) -> wire::LexicalQuery {
    use wire::lexical_query::Fusion as Wire;
    let fusion = match lexical.fusion {
        Fusion::Rrf { k } => Wire::RankFusion(wire::RankFusion { k: Some(k) }),
        Fusion::Weighted { lexical } => Wire::WeightedFusion(wire::WeightedFusion { lexical }),
    };
    wire::LexicalQuery { text: lexical.text.clone(), fusion: Some(fusion) }
}
