//! The seven golden families: ids exactly as the reference's, from `tokenizer.json` and from the older
//! files alone.

use safetensors::SafeTensors;

use super::*;

struct Family {
    folder: &'static str,
    kind: Kind,
    padding: Padding,
    cleaning: Cleaning,
    /// What the reference pads with where the tower never looks.
    pad: i64,
    /// A file of older spelling that the folder ships.
    older: Option<&'static str>,
}

const fn family(folder: &'static str, kind: Kind, pad: i64, older: Option<&'static str>) -> Family {
    Family { folder, kind, padding: Padding::None, cleaning: Cleaning::None, pad, older }
}

const FAMILIES: [Family; 7] = [
    family("hf-clip-openai", Kind::ClipBpe, 49407, None),
    family("hf-clip-laion", Kind::ClipBpe, 49407, None),
    family("hf-chinese-clip", Kind::Bert, 0, Some("vocab.txt")),
    family("hf-vision-text-dual-encoder", Kind::Bert, 0, Some("vocab.txt")),
    Family { padding: Padding::ToContext, ..family("hf-siglip", Kind::Siglip, 1, Some("spiece.model")) },
    Family { cleaning: Cleaning::OpenClipSimple, ..family("openclip-native", Kind::ClipBpe, 0, None) },
    Family {
        cleaning: Cleaning::OpenClipHf,
        ..family("openclip-biomedclip", Kind::Bert, 0, Some("vocab.txt"))
    },
];

fn rows(tensors: &SafeTensors<'_>, name: &str) -> Option<Vec<Vec<i64>>> {
    let view = tensors.tensor(name).ok()?;
    let values: Vec<i64> =
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    Some(values.chunks(view.shape()[1]).map(<[i64]>::to_vec).collect())
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect()
}

/// Compares all texts and extra texts of a family; gives how many ids were equal.
fn compare(family: &Family, golden: &Path, model: &Path) -> usize {
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(golden.join("golden.json")).unwrap()).unwrap();
    let bytes = std::fs::read(golden.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let length = json["text"]["max_length"].as_u64().unwrap() as usize;
    let rules = TextRules {
        context_length: Some(length),
        padding: family.padding,
        cleaning: family.cleaning,
        ..rules(family.kind)
    };
    let tokenizer = TextTokenizer::from_dir(model, &rules).unwrap();
    assert_eq!(tokenizer.context_length(), length);
    let mut equal = 0;
    for (texts, ids, mask) in [
        (strings(&json["texts"]), "input_ids", "attention_mask"),
        (strings(&json["extra_texts"]["texts"]), "extra_input_ids", "extra_attention_mask"),
    ] {
        let (ids, mask) = (rows(&tensors, ids).unwrap(), rows(&tensors, mask));
        assert_eq!(texts.len(), ids.len());
        for (row, (text, expected)) in texts.iter().zip(&ids).enumerate() {
            let prepared = tokenizer.prepare(text).unwrap();
            let mut found: Vec<i64> = prepared.ids.iter().copied().map(i64::from).collect();
            assert!(found.len() <= length);
            assert!(prepared.truncated_tokens == 0 || found.len() == length);
            if let Some(mask) = &mask {
                let seen = mask[row].iter().filter(|&&m| m == 1).count();
                assert_eq!(found.len(), seen, "{}: mask of {text:?}", family.folder);
            }
            found.resize(length, family.pad);
            assert_eq!(&found, expected, "{}: {text:?}", family.folder);
            equal += found.len();
        }
    }
    equal
}

#[test]
fn ids_of_every_golden_family_from_tokenizer_json() {
    for family in &FAMILIES {
        let Some(golden) = shared(&format!("golden/{}", family.folder)) else { return };
        let equal = compare(family, &golden, &golden.join("model"));
        eprintln!("{}: {equal} ids equal", family.folder);
    }
}

#[test]
fn ids_of_every_golden_family_from_the_older_files() {
    for family in &FAMILIES {
        let Some(golden) = shared(&format!("golden/{}", family.folder)) else { return };
        let model = golden.join("model");
        let copy = dir(&[]);
        let settings = ["tokenizer_config.json", "special_tokens_map.json"];
        for file in settings.into_iter().chain(family.older) {
            std::fs::copy(model.join(file), copy.path().join(file)).unwrap();
        }
        if family.older.is_none() {
            split_bpe(&model.join("tokenizer.json"), copy.path());
        }
        let equal = compare(family, &golden, copy.path());
        eprintln!("{}: {equal} ids equal", family.folder);
    }
}

/// The older pair of files with a vocabulary of CLIP's kind.
fn split_bpe(single: &Path, out: &Path) {
    let json: Value = serde_json::from_str(&std::fs::read_to_string(single).unwrap()).unwrap();
    std::fs::write(out.join("vocab.json"), json["model"]["vocab"].to_string()).unwrap();
    let merges: Vec<String> = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|merge| match merge {
            Value::String(pair) => pair.clone(),
            pair => strings(pair).join(" "),
        })
        .collect();
    std::fs::write(out.join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
}

/// The stored spelling makes no difference to the model id.
#[test]
fn both_spellings_have_one_definition() {
    for (folder, kind, older) in
        [("hf-clip-openai", Kind::ClipBpe, None), ("hf-chinese-clip", Kind::Bert, Some("vocab.txt"))]
    {
        let Some(golden) = shared(&format!("golden/{folder}")) else { return };
        let model = golden.join("model");
        let copy = dir(&[]);
        match older {
            Some(file) => drop(std::fs::copy(model.join(file), copy.path().join(file)).unwrap()),
            None => split_bpe(&model.join("tokenizer.json"), copy.path()),
        }
        std::fs::copy(model.join("tokenizer_config.json"), copy.path().join("tokenizer_config.json"))
            .unwrap();
        let one = TextTokenizer::from_dir(&model, &rules(kind)).unwrap().definition().unwrap();
        let two = TextTokenizer::from_dir(copy.path(), &rules(kind)).unwrap().definition().unwrap();
        assert!(one == two, "{folder}");
    }
}

/// Chunks of odd and long texts fit the context of every family and lose nothing.
#[test]
fn chunks_fit_every_golden_family() {
    let long = "The dog, aged 3.5 years, ran. It was fast! 犬が走る。".repeat(300)
        + &"word ".repeat(2000)
        + &"unbroken".repeat(4000)
        + &"漢字とかな".repeat(2000)
        + &"🙂\u{200d}é\u{301}".repeat(500);
    for family in &FAMILIES {
        let Some(golden) = shared(&format!("golden/{}", family.folder)) else { return };
        let rules = TextRules { padding: family.padding, cleaning: family.cleaning, ..rules(family.kind) };
        let tokenizer = TextTokenizer::from_dir(&golden.join("model"), &rules).unwrap();
        let chunks = tokenizer.split(&long);
        assert!(chunks.len() > 100, "{}: {}", family.folder, chunks.len());
        let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        assert!(solid(&chunks.concat()) == solid(&long), "{}", family.folder);
        for chunk in &chunks {
            let prepared = tokenizer.prepare(chunk).unwrap();
            assert_eq!(prepared.truncated_tokens, 0, "{}: {chunk:?}", family.folder);
        }
    }
}

/// Ids of open_clip 3.3's and transformers 5.23's tokenizers for texts that only their own cleaning and
/// patterns get right.
#[test]
fn odd_texts_have_the_ids_of_the_reference() {
    let check = |folder: &str, kept: &[&str], rules: TextRules<'_>, cases: &[(&str, &[u32])]| {
        let Some(golden) = shared(&format!("golden/{folder}")) else { return };
        let model = dir(&[]);
        for file in kept {
            std::fs::copy(golden.join("model").join(file), model.path().join(file)).unwrap();
        }
        let tokenizer = TextTokenizer::from_dir(model.path(), &rules).unwrap();
        for (text, expected) in cases {
            assert_eq!(tokenizer.prepare(text).unwrap().ids, *expected, "{folder}: {text:?}");
        }
    };
    let simple = TextRules { cleaning: Cleaning::OpenClipSimple, ..rules(Kind::ClipBpe) };
    check(
        "openclip-native",
        &[TOKENIZER_FILE],
        simple,
        &[
            (
                "don't DON'T we'll I'D they'RE 's 'S",
                &[49406, 847, 713, 847, 713, 649, 1342, 328, 1896, 889, 982, 568, 568, 49407],
            ),
            ("a <end_of_text> b", &[49406, 320, 49407, 321, 49407]),
            ("<|endoftext|>", &[49406, 27, 347, 40786, 4160, 91, 285, 49407]),
            ("&EACUTE; &nbsp;x", &[49406, 4166, 343, 49407]),
            ("<b>a &amp; b</b>", &[49406, 283, 321, 285, 320, 261, 321, 34308, 321, 285, 49407]),
            ("a\r\nb\rc\u{2028}d\u{2029}e\u{85}f", &[49406, 320, 321, 322, 323, 324, 959, 325, 49407]),
            ("\u{130}stanbul \u{131}I", &[49406, 328, 16384, 11231, 18562, 328, 49407]),
            (
                "ΟΔΟΣ ΣΑΣ Σ",
                &[
                    49406, 138, 123, 138, 112, 138, 123, 139, 480, 139, 225, 138, 109, 139, 480, 139, 481,
                    49407,
                ],
            ),
            ("\u{1b}[31mred\u{1b}[0m", &[49406, 736, 49407]),
        ],
    );
    check(
        "hf-siglip",
        &["spiece.model"],
        rules(Kind::Siglip),
        &[
            ("a\u{301}\u{302}\u{303}\u{304}", &[31, 2, 1]),
            ("a</s>b", &[13, 1, 348, 1]),
            ("½ Ⅳ ① ㎏", &[31, 4, 2, 5, 813, 504, 31, 4, 31, 350, 334, 1]),
            ("ｶ\u{ff9e}ｷ\u{ff9e} ﾊﾝｶｸ", &[31, 2, 31, 2, 1]),
            ("\u{130}stanbul \u{131}I", &[813, 2, 224, 38, 348, 237, 193, 31, 2, 383, 1]),
            ("tESt MiXeD CaSe", &[131, 26, 224, 404, 1245, 32, 707, 15, 26, 1]),
            ("Mr. Smith", &[404, 290, 168, 81, 383, 268, 1]),
            ("…", &[14, 1499, 1499, 1]),
        ],
    );
}
