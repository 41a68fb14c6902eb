//! Texts that nobody types on purpose, and files that are wrong. Vocabularies are made here.

use super::*;

/// A protobuf field: a number.
fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

/// A protobuf field: bytes.
fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A SentencePiece model of `(piece, score, type)` with trainer settings.
fn pieces(list: &[(&str, f32, u64)], trainer: &[(u64, u64)]) -> Vec<u8> {
    let mut model = Vec::new();
    for &(text, score, kind) in list {
        let mut piece = Vec::new();
        bytes(&mut piece, 1, text.as_bytes());
        varint(&mut piece, 2 << 3 | 5);
        piece.extend_from_slice(&score.to_le_bytes());
        number(&mut piece, 3, kind);
        bytes(&mut model, 1, &piece);
    }
    let mut spec = Vec::new();
    trainer.iter().for_each(|&(field, value)| number(&mut spec, field, value));
    bytes(&mut model, 2, &spec);
    model
}

const UNIGRAM: [(&str, f32, u64); 9] = [
    ("<unk>", 0.0, 2),
    ("</s>", 0.0, 3),
    ("▁a", -1.0, 1),
    ("▁", -2.0, 1),
    ("dog", -3.0, 1),
    ("▁dog", -2.5, 1),
    ("s", -4.0, 1),
    ("a", -4.5, 1),
    ("cat", -1.0, 5),
];

const BERT: &[u8] = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\ndog\n##s\nA\n\xc3\xa9\ne\n\xe7\x8a\xac\n!\n";

/// CLIP's shape in small: bytes with and without the end of a word, two merges.
fn clip() -> tempfile::TempDir {
    let mut vocab = serde_json::Map::new();
    let mut add = |token: String| {
        let id = vocab.len();
        vocab.insert(token, json!(id));
    };
    for letter in ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('Ā'..='Ń') {
        add(letter.to_string());
        add(format!("{letter}</w>"));
    }
    for token in ["do", "dog</w>", "<|startoftext|>", "<|endoftext|>"] {
        add(token.to_owned());
    }
    let vocab = Value::Object(vocab).to_string();
    dir(&[("vocab.json", vocab.as_bytes()), ("merges.txt", b"#version: 0.2\nd o\ndo g</w>\n")])
}

fn message(dir: &tempfile::TempDir, rules: &TextRules<'_>) -> String {
    TextTokenizer::from_dir(dir.path(), rules).unwrap_err().to_string()
}

fn ids(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
    tokenizer.prepare(text).unwrap().ids
}

#[test]
fn spiece_model_alone_is_canonicalised_and_padded() {
    let model = dir(&[("spiece.model", &pieces(&UNIGRAM, &[(3, 1), (40, 0)]))]);
    let rules = TextRules {
        context_length: Some(6),
        vocab_size: UNIGRAM.len(),
        padding: Padding::ToContext,
        ..rules(Kind::Siglip)
    };
    let tokenizer = TextTokenizer::from_dir(model.path(), &rules).unwrap();
    for (text, expected) in [
        ("A dog's", [2, 5, 6, 1, 1, 1]),
        ("a,\t(DOG)!  ", [2, 5, 1, 1, 1, 1]),
        ("  a", [3, 2, 1, 1, 1, 1]),
        ("adog", [2, 4, 1, 1, 1, 1]),
        ("▁a", [3, 2, 1, 1, 1, 1]),
        ("a</s>a", [2, 1, 7, 1, 1, 1]),
        ("a漢字a", [2, 0, 7, 1, 1, 1]),
        ("cat", [3, 0, 7, 0, 1, 1]),
    ] {
        assert_eq!(ids(&tokenizer, text), expected, "{text}");
    }
    let long = tokenizer.prepare("a dog a dog a dog a dog").unwrap();
    assert_eq!((long.ids, long.truncated_tokens), (vec![2, 5, 2, 5, 2, 1], 3));
    assert_eq!(tokenizer.prepare("?!"), Err(EncodeError::EmptyText));
    assert_eq!(tokenizer.probe().unwrap(), [2, 1, 1, 1, 1, 1]);
    let summary = tokenizer.describe();
    assert_eq!((summary.algorithm, summary.padding.as_str()), ("Unigram", "to 6 with id 1"));
}

#[test]
fn gemma_from_tokenizer_model_keeps_case_spaces_and_bytes() {
    let mut list =
        vec![("<pad>".to_owned(), 0.0, 3), ("<eos>".to_owned(), 0.0, 3), ("<bos>".to_owned(), 0.0, 3)];
    list.push(("<unk>".to_owned(), 0.0, 2));
    list.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    for (rank, piece) in ["do", "dog", "▁dog", "▁", "d", "o", "g", "D"].into_iter().enumerate() {
        list.push((piece.to_owned(), -(rank as f32), 1));
    }
    let list: Vec<(&str, f32, u64)> = list.iter().map(|(text, s, kind)| (text.as_str(), *s, *kind)).collect();
    let file = pieces(&list, &[(3, 2), (35, 1), (40, 3)]);
    let settings = json!({"tokenizer_class": "GemmaTokenizerFast", "add_bos_token": false,
                          "add_eos_token": true, "padding_side": "right"});
    let model = dir(&[("tokenizer.model", &file), (SETTINGS_FILE, settings.to_string().as_bytes())]);
    let rules = TextRules { context_length: Some(8), padding: Padding::ToContext, ..rules(Kind::Siglip) };
    let tokenizer = TextTokenizer::from_dir(model.path(), &rules).unwrap();
    assert_eq!(ids(&tokenizer, "dog dog"), [261, 262, 1, 0, 0, 0, 0, 0]);
    assert_eq!(ids(&tokenizer, " Dé"), [263, 267, 4 + 0xc3, 4 + 0xa9, 1, 0, 0, 0]);
    let left = json!({"tokenizer_class": "GemmaTokenizer", "add_bos_token": true});
    let model = dir(&[("tokenizer.model", &file), (SETTINGS_FILE, left.to_string().as_bytes())]);
    let tokenizer = TextTokenizer::from_dir(model.path(), &rules).unwrap();
    assert_eq!(ids(&tokenizer, "dog"), [0, 0, 0, 0, 0, 0, 2, 261]);
    let silent =
        dir(&[("tokenizer.model", &file), (SETTINGS_FILE, br#"{"tokenizer_class": "GemmaTokenizer"}"#)]);
    assert!(message(&silent, &rules).contains("add_eos_token"));
}

#[test]
fn vocab_txt_follows_its_settings_and_finds_special_tokens_by_name() {
    let build = |settings: Value| {
        let model = dir(&[("vocab.txt", BERT), (SETTINGS_FILE, settings.to_string().as_bytes())]);
        TextTokenizer::from_dir(model.path(), &rules(Kind::Bert)).unwrap()
    };
    let plain = build(json!({}));
    assert_eq!(ids(&plain, "A dogs! é犬x"), [2, 4, 5, 6, 11, 9, 10, 1, 3]);
    assert_eq!(ids(&plain, "é 犬"), [2, 9, 10, 3]);
    let cased = build(json!({"do_lower_case": false}));
    assert_eq!(ids(&cased, "A é"), [2, 7, 8, 3]);
    let accents = build(json!({"strip_accents": false}));
    assert_eq!(ids(&accents, "A é"), [2, 4, 8, 3]);
    let chinese = build(json!({"tokenize_chinese_chars": false}));
    assert_eq!(ids(&chinese, "a犬"), [2, 1, 3]);
    let renamed = build(json!({"cls_token": "A", "sep_token": {"content": "!"}}));
    assert_eq!(ids(&renamed, "dog"), [7, 5, 11]);
    let short = TextRules { context_length: Some(4), ..rules(Kind::Bert) };
    let model = dir(&[("vocab.txt", BERT)]);
    let prepared = TextTokenizer::from_dir(model.path(), &short).unwrap().prepare("a dog a dog").unwrap();
    assert_eq!((prepared.ids, prepared.truncated_tokens), (vec![2, 4, 5, 3], 2));
}

#[test]
fn model_max_length_lowers_the_context_when_it_is_sane() {
    let length = |settings: &str, rules: &TextRules<'_>| {
        let model = dir(&[("vocab.txt", BERT), (SETTINGS_FILE, settings.as_bytes())]);
        TextTokenizer::from_dir(model.path(), rules).map(|t| t.context_length()).map_err(|e| e.to_string())
    };
    let plain = rules(Kind::Bert);
    assert_eq!(length(r#"{"model_max_length": 16}"#, &plain), Ok(16));
    assert_eq!(length(r#"{"model_max_length": 512}"#, &plain), Ok(32));
    assert_eq!(length(r#"{"model_max_length": 1000000000000000019884624838656}"#, &plain), Ok(32));
    let open_clip = TextRules { cleaning: Cleaning::OpenClipHf, ..plain };
    assert_eq!(length(r#"{"model_max_length": 16}"#, &open_clip), Ok(32));
    let unknown = TextRules { context_length: None, ..plain };
    assert_eq!(length(r#"{"model_max_length": 16}"#, &unknown), Ok(16));
    assert!(length("{}", &unknown).unwrap_err().contains("model_max_length"));
}

#[test]
fn open_clip_cleans_pads_with_zero_and_strips_the_separator() {
    let model = clip();
    let simple = TextRules {
        context_length: Some(12),
        padding: Padding::ToContextWith(0),
        cleaning: Cleaning::OpenClipSimple,
        ..rules(Kind::ClipBpe)
    };
    let tokenizer = TextTokenizer::from_dir(model.path(), &simple).unwrap();
    let plain = ids(&tokenizer, "dog & dog");
    assert_eq!(ids(&tokenizer, " ＤＯＧ\u{a0}&amp;amp;\tdog\0 "), plain);
    assert_eq!((plain.len(), &plain[5..]), (12, &[0u32; 7][..]));
    let kwargs = json!({"clean": "whitespace"});
    let cased = TextRules { tokenizer_kwargs: Some(&kwargs), ..simple };
    assert_ne!(ids(&TextTokenizer::from_dir(model.path(), &cased).unwrap(), "DOG & dog"), plain);

    let model = dir(&[("vocab.txt", BERT)]);
    let kwargs = json!({"strip_sep_token": true});
    let hf = TextRules {
        context_length: Some(5),
        padding: Padding::ToContext,
        cleaning: Cleaning::OpenClipHf,
        tokenizer_kwargs: Some(&kwargs),
        ..rules(Kind::Bert)
    };
    assert_eq!(ids(&TextTokenizer::from_dir(model.path(), &hf).unwrap(), "a dog"), [2, 4, 5, 0, 0]);
}

#[test]
fn what_would_change_the_ids_and_is_not_supported_is_refused_by_name() {
    let model = dir(&[("vocab.txt", BERT)]);
    for (kwargs, name) in [
        (json!({"clean": "fancy"}), "fancy"),
        (json!({"reduction_mask": "simple"}), "reduction_mask"),
        (json!({"additional_special_tokens": ["x"]}), "additional_special_tokens"),
        (json!(7), "tokenizer_kwargs"),
    ] {
        let rules = TextRules {
            cleaning: Cleaning::OpenClipHf,
            tokenizer_kwargs: Some(&kwargs),
            ..rules(Kind::Bert)
        };
        assert!(message(&model, &rules).contains(name), "{}", message(&model, &rules));
    }
    for (settings, name) in [
        (r#"{"truncation_side": "left"}"#, "truncation_side"),
        (r#"{"do_lower_case": "yes"}"#, "do_lower_case"),
        (r#"{"tokenizer_class": "RobertaTokenizer"}"#, "RobertaTokenizer"),
        (r#"{"cls_token": "[NONE]"}"#, "[NONE]"),
        (r#"{"added_tokens_decoder": {"7": {"content": "[NEW]"}}}"#, "[NEW]"),
        ("[", "tokenizer_config.json"),
    ] {
        let model = dir(&[("vocab.txt", BERT), (SETTINGS_FILE, settings.as_bytes())]);
        let text = message(&model, &rules(Kind::Bert));
        assert!(text.contains(name), "{text}");
    }
    let small = TextRules { vocab_size: 11, ..rules(Kind::Bert) };
    assert!(message(&model, &small).contains("'!'"), "{}", message(&model, &small));
    for (kind, name) in [(Kind::ClipBpe, "clip-vit-base-patch32"), (Kind::Siglip, "spiece.model")] {
        let text = message(&dir(&[]), &rules(kind));
        assert!(text.contains(name) && text.contains("tokenizer.json"), "{text}");
    }
}

#[test]
fn broken_sentencepiece_models_are_refused() {
    let whole = pieces(&UNIGRAM, &[(3, 1), (40, 0)]);
    for (file, name) in [
        (whole[..whole.len() - 3].to_vec(), "cut short"),
        (pieces(&UNIGRAM, &[(3, 3)]), "WORD"),
        (pieces(&UNIGRAM, &[(3, 4)]), "CHAR"),
        (pieces(&UNIGRAM, &[(24, 1)]), "treat_whitespace_as_suffix"),
        (pieces(&UNIGRAM, &[(40, 2)]), "unknown"),
        (pieces(&UNIGRAM[2..], &[]), "unknown"),
        (pieces(&[("<unk>", 0.0, 2)], &[]), "</s>"),
        (Vec::new(), "no pieces"),
        (vec![0xff; 40], "too many bytes"),
        (b"\x0f".to_vec(), "wire type"),
    ] {
        let text = message(&dir(&[("spiece.model", &file)]), &rules(Kind::Siglip));
        assert!(text.contains(name), "{name}: {text}");
    }
    for length in 0..whole.len() {
        // Nothing but an error or a smaller model may come of a file that is cut anywhere.
        let _ = sentencepiece::Model::parse("spiece.model", &whole[..length]);
    }
}

/// Nothing panics, nothing outgrows the context, and chunks lose nothing.
#[test]
fn odd_texts_are_prepared_and_cut_by_every_kind() {
    let clip = clip();
    let bert = dir(&[("vocab.txt", BERT)]);
    let siglip = dir(&[("spiece.model", &pieces(&UNIGRAM, &[(3, 1), (40, 0)]))]);
    let padded = TextRules { padding: Padding::ToContext, ..rules(Kind::Siglip) };
    let open_clip = TextRules { cleaning: Cleaning::OpenClipSimple, ..rules(Kind::ClipBpe) };
    let texts = [
        "👩‍👩‍👧 🇩🇪 1️⃣".to_owned(),
        "שלום \u{202e}עולם مرحبا".to_owned(),
        "nul\0inside \u{1}\u{7f}\u{feff}".to_owned(),
        "e\u{301}\u{302}\u{303} \u{301}\u{1100}\u{1161}".to_owned(),
        "&#xD800; &notanentity; &#99999999999999; & &".to_owned(),
        "\u{10ffff}\u{fffd}\u{e000}".to_owned(),
        "x".repeat(60_000),
        "漢".repeat(20_000),
        "a dog. ".repeat(8_500),
        "\u{1b}[".repeat(5_000),
    ];
    for (model, rules) in
        [(&clip, rules(Kind::ClipBpe)), (&clip, open_clip), (&bert, rules(Kind::Bert)), (&siglip, padded)]
    {
        let tokenizer = TextTokenizer::from_dir(model.path(), &rules).unwrap();
        for empty in ["", " \n\t\u{a0}"] {
            assert_eq!(tokenizer.prepare(empty), Err(EncodeError::EmptyText));
        }
        for text in &texts {
            let Ok(prepared) = tokenizer.prepare(text) else { continue };
            assert!(prepared.ids.len() <= 32);
            assert!(prepared.truncated_tokens == 0 || prepared.ids.len() == 32);
            let chunks = tokenizer.split(text);
            let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            assert!(solid(&chunks.concat()) == solid(text));
            let cut: u32 =
                chunks.iter().filter_map(|c| tokenizer.prepare(c).ok()).map(|p| p.truncated_tokens).sum();
            assert_eq!(cut, 0, "{:?}", text.chars().take(20).collect::<String>());
        }
    }
}
