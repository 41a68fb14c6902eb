//! Stored outputs of the reference libraries against ours, within the stated tolerances: every folder of
//! the golden fixtures, whatever its family.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{Tensors, floats, max_diff, read_tensors, shared};
use diptych_core::{Embedding, Encode, PreparedImage, PreparedText};
use diptych_encoder::{DualEncoder, Pixels};
use serde_json::Value;

/// The image with an EXIF orientation, which we always apply.
const ORIENTED: usize = 5;

struct Golden {
    name: String,
    folder: PathBuf,
    facts: Value,
    tensors: Tensors,
    encoder: DualEncoder,
}

fn golden() -> Vec<Golden> {
    let Some(root) = shared("golden") else { return Vec::new() };
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("golden.json").exists());
    folders.sort();
    assert!(folders.len() >= 7, "{folders:?}");
    folders.into_iter().map(Golden::open).collect()
}

impl Golden {
    fn open(folder: PathBuf) -> Self {
        let facts =
            serde_json::from_str(&std::fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
        let tensors = read_tensors(&folder.join("golden.safetensors"));
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let encoder = DualEncoder::load(&folder.join("model")).unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { name, folder, facts, tensors, encoder }
    }

    fn strings(&self, key: &str) -> Vec<String> {
        let list = key.split('.').fold(&self.facts, |at, key| &at[key]);
        list.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect()
    }

    /// Rows of ids; none where the family has no such rows.
    fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let Some((_, shape, bytes)) = self.tensors.get(name) else { return Vec::new() };
        let ids: Vec<u32> = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
        ids.chunks_exact(shape[1]).map(<[u32]>::to_vec).collect()
    }

    /// Stored pixels as the tower's input.
    fn stored_images(&self, name: &str) -> Vec<PreparedImage> {
        let (height, width) = self.encoder.image_size();
        let area = height * width;
        self.stored_planes(name)
            .into_iter()
            .map(|planes| {
                let data = (0..area * 3).map(|i| planes[i % 3 * area + i / 3]).collect();
                let pixels = Pixels { data, width, height };
                let values = self.encoder.preprocessing().normalize(&pixels).into();
                PreparedImage { values, width: 1, height: 1 }
            })
            .collect()
    }

    fn stored_planes(&self, name: &str) -> Vec<Vec<u8>> {
        let (_, shape, bytes) = &self.tensors[name];
        bytes.chunks_exact(shape[1] * shape[2] * shape[3]).map(<[u8]>::to_vec).collect()
    }

    fn rows(&self, name: &str) -> Vec<Vec<f32>> {
        floats(&self.tensors, name).chunks_exact(self.tensors[name].1[1]).map(<[f32]>::to_vec).collect()
    }

    fn image_files(&self) -> Vec<Vec<u8>> {
        self.strings("images").iter().map(|path| std::fs::read(self.folder.join(path)).unwrap()).collect()
    }

    /// Whether the reference ignores EXIF orientations; its other row then has ours.
    fn reference_ignores_exif(&self) -> bool {
        self.facts["exif"]["reference_applies_exif"] == false
    }

    /// Stored rows of the images with the orientation applied.
    fn upright<T>(&self, mut rows: Vec<T>, mut alternative: Vec<T>) -> Vec<T> {
        if self.reference_ignores_exif() {
            rows[ORIENTED] = alternative.remove(0);
        }
        rows
    }

    /// Worst cosine and worst absolute difference against stored rows.
    fn compare(&self, what: &str, ours: &[Embedding], stored: Vec<Vec<f32>>) -> (f32, f32) {
        assert_eq!(ours.len(), stored.len());
        let mut worst = (1f32, 0f32);
        for (ours, stored) in ours.iter().zip(stored) {
            let truth = Embedding::new(stored).unwrap();
            let cosine = ours.cosine(&truth);
            worst = (worst.0.min(cosine), worst.1.max(max_diff(ours.as_slice(), truth.as_slice())));
        }
        eprintln!("{:28} {what:40} 1-cos {:.1e}  max abs {:.1e}", self.name, 1.0 - worst.0, worst.1);
        worst
    }

    fn assert_same(&self, what: &str, ours: &[Embedding], stored: &str) {
        let (cosine, difference) = self.compare(what, ours, self.rows(stored));
        assert!(cosine >= 0.9999 && difference <= 1e-3, "{} {what}: {cosine} {difference}", self.name);
    }
}

/// Ours are not padded where the tower needs no padding: then what follows in the stored row is
/// one id over and over, and masked where there is a mask.
#[test]
fn token_ids_are_equal() {
    for g in golden() {
        for (texts, stored) in [("texts", "input_ids"), ("extra_texts.texts", "extra_input_ids")] {
            let stored = g.ids(stored);
            let masks = if texts == "texts" { g.ids("attention_mask") } else { Vec::new() };
            for (i, (text, stored)) in g.strings(texts).iter().zip(&stored).enumerate() {
                let prepared = g.encoder.prepare_text(text).unwrap();
                let real = prepared.ids.len();
                assert!(real <= stored.len(), "{} {text:.60}: {real}", g.name);
                assert_eq!(prepared.ids, stored[..real], "{} {text:.60}", g.name);
                let pads = &stored[real..];
                assert!(pads.iter().all(|id| *id == pads[0]), "{} {text:.60}: {pads:?}", g.name);
                if let Some(mask) = masks.get(i) {
                    assert_eq!(mask.iter().sum::<u32>() as usize, real, "{} {text:.60}", g.name);
                }
                assert_eq!(prepared.truncated_tokens > 0, text.len() > 1000, "{} {text:.60}", g.name);
            }
            eprintln!("{:28} {texts}: {} id rows equal", g.name, stored.len());
        }
        let length = g.facts["text"]["max_length"].as_u64().unwrap() as usize;
        assert_eq!(g.encoder.tokenizer().context_length(), length, "{}", g.name);
        let long = g.encoder.prepare_text(&g.strings("texts")[1]).unwrap();
        assert_eq!(long.ids.len(), length);
        assert!(long.truncated_tokens > 20, "{}", long.truncated_tokens);
    }
}

#[test]
fn towers_give_the_reference_embeddings() {
    for g in golden() {
        let images = g.encoder.encode_images(&g.stored_images("pixels_u8")).unwrap();
        g.assert_same("images from stored pixels", &images, "image_embeds");
        let turned = g.encoder.encode_images(&g.stored_images("alt_exif_pixels_u8")).unwrap();
        g.assert_same("image under the other EXIF policy", &turned, "alt_exif_image_embeds");
        let texts = g.encoder.encode_ids(&g.ids("input_ids")).unwrap();
        g.assert_same("texts from stored ids", &texts, "text_embeds");
        for (ids, truth) in
            [("case0_input_ids", "case0_text_embeds"), ("extra_input_ids", "extra_text_embeds")]
        {
            let ids = g.ids(ids);
            if !ids.is_empty() {
                g.assert_same(truth, &g.encoder.encode_ids(&ids).unwrap(), truth);
            }
        }

        let stored_scale = floats(&g.tensors, "logit_scale")[0];
        assert!((g.encoder.logit_scale() - stored_scale).abs() < 1e-6);
        let stored_bias = g.tensors.get("logit_bias").map(|_| floats(&g.tensors, "logit_bias")[0]);
        assert_eq!(g.encoder.logit_bias(), stored_bias);
        let (scale, bias) = (stored_scale.exp(), stored_bias.unwrap_or(0.0));
        let ours: Vec<f32> =
            images.iter().flat_map(|i| texts.iter().map(move |t| scale * i.cosine(t) + bias)).collect();
        let worst = max_diff(&ours, &floats(&g.tensors, "logits_per_image"));
        eprintln!("{:28} logits: max abs {worst:.1e}, allowed {:.1e}", g.name, 2e-3 * scale);
        assert!(worst <= 2e-3 * scale);
    }
}

#[test]
fn files_give_the_reference_embeddings_end_to_end() {
    for g in golden() {
        let planes = g.upright(g.stored_planes("pixels_u8"), g.stored_planes("alt_exif_pixels_u8"));
        let truth = g.upright(g.rows("image_embeds"), g.rows("alt_exif_image_embeds"));
        let files = g.image_files();
        let prepared: Vec<PreparedImage> =
            files.iter().map(|b| g.encoder.prepare_image(b).unwrap()).collect();
        let images = g.encoder.encode_images(&prepared).unwrap();
        let (cosine, _) = g.compare("images from files", &images, truth.clone());
        assert!(cosine >= 0.995, "{} {cosine}", g.name);
        let mut equal = 0;
        for (i, truth) in truth.iter().enumerate() {
            let pixels = g.encoder.preprocessing().pixels_of_file(&files[i]).unwrap().to_planes();
            if pixels == planes[i] {
                equal += 1;
                assert!(max_diff(images[i].as_slice(), truth) <= 1e-3, "{} image {i}", g.name);
            }
        }
        assert!(equal >= 3, "{}: the pixels of {equal} images are Pillow's", g.name);
        let texts: Vec<PreparedText> =
            g.strings("texts").iter().map(|t| g.encoder.prepare_text(t).unwrap()).collect();
        g.assert_same("texts from strings", &g.encoder.encode_texts(&texts).unwrap(), "text_embeds");
    }
}

/// Policy: EXIF orientation is always applied, also in families whose reference ignores it. The stored
/// rows with the orientation ignored are reached only by an image that carries none.
#[test]
fn exif_orientation_is_applied() {
    for g in golden() {
        let embed = |bytes: &[u8]| {
            let prepared = g.encoder.prepare_image(bytes).unwrap();
            g.encoder.encode_images(&[prepared]).unwrap().remove(0)
        };
        let row = |name: &str, i: usize| Embedding::new(g.rows(name).remove(i)).unwrap();
        let bytes = std::fs::read(g.folder.join("../images/5_exif.jpg")).unwrap();
        let (mut applied, mut ignored) = (row("image_embeds", ORIENTED), row("alt_exif_image_embeds", 0));
        if g.reference_ignores_exif() {
            std::mem::swap(&mut applied, &mut ignored);
        }
        assert!(embed(&bytes).cosine(&applied) >= 0.995, "{}", g.name);
        assert!(embed(&bytes).cosine(&ignored) < 0.99, "{}", g.name);
        assert!(embed(&without_exif(&bytes)).cosine(&ignored) >= 0.995, "{}", g.name);
    }
}

/// The JPEG without its APP1 segments.
fn without_exif(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (bytes[..2].to_vec(), 2);
    while bytes[at + 1] != 0xDA {
        let end = at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        if bytes[at + 1] != 0xE1 {
            out.extend(&bytes[at..end]);
        }
        at = end;
    }
    out.extend(&bytes[at..]);
    out
}

/// The published pair vocab.json and merges.txt makes the same tokenizer, and the same model.
#[test]
fn vocab_and_merges_equal_tokenizer_json() {
    for g in golden() {
        let model = g.folder.join("model");
        let text = std::fs::read_to_string(model.join("tokenizer.json")).unwrap();
        let definition: Value = serde_json::from_str(&text).unwrap();
        if definition["model"]["type"] != "BPE" {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&model).unwrap().map(|entry| entry.unwrap().path()) {
            if !file.ends_with("tokenizer.json") {
                std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
            }
        }
        split_tokenizer(&definition, dir.path());
        let other = DualEncoder::load(dir.path()).unwrap();
        for text in g.strings("texts").iter().chain(&g.strings("extra_texts.texts")) {
            assert_eq!(other.prepare_text(text), g.encoder.prepare_text(text), "{text:.60}");
        }
        assert_eq!(other.model_id(), g.encoder.model_id());
    }
}

fn split_tokenizer(definition: &Value, out: &Path) {
    std::fs::write(out.join("vocab.json"), definition["model"]["vocab"].to_string()).unwrap();
    let merges: Vec<&str> =
        definition["model"]["merges"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    std::fs::write(out.join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
}

/// BiomedCLIP is published as a pickle only; the fixture has the same tensors in both forms.
#[test]
fn pickled_weights_are_the_same_model() {
    for g in golden() {
        let model = g.folder.join("model");
        if !model.join("open_clip_pytorch_model.bin").exists() {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&model).unwrap().map(|entry| entry.unwrap().path()) {
            if !file.ends_with("open_clip_model.safetensors") {
                std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
            }
        }
        let pickled = DualEncoder::load(dir.path()).unwrap();
        assert_eq!(pickled.model_id(), g.encoder.model_id());
        let ids = g.ids("input_ids");
        assert_eq!(pickled.encode_ids(&ids).unwrap(), g.encoder.encode_ids(&ids).unwrap());
    }
}
