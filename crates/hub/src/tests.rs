//! Models by name, as a user meets them: cached, offline, and (with downloads) from a server.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;

use super::*;

#[cfg(feature = "download")]
mod downloads;
#[cfg(feature = "download")]
mod server;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const WHOLE: [&str; 4] =
    ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"];

pub(crate) fn name() -> ModelName {
    "hf:owner/name".parse().unwrap()
}

pub(crate) fn settings(cache: &Path) -> Settings {
    Settings { cache: cache.to_owned(), endpoint: "http://127.0.0.1:9".into(), offline: true, token: None }
}

pub(crate) fn quiet() -> impl FnMut(Event<'_>) {
    |_| {}
}

/// A repository as the Python tools cache it: links to blobs.
fn cached(cache: &Path, reference: &str, names: &[&str]) -> PathBuf {
    let folder = cache.join("models--owner--name");
    let dir = folder.join("snapshots").join(COMMIT);
    for path in [&dir, &folder.join("blobs"), folder.join("refs").join(reference).parent().unwrap()] {
        std::fs::create_dir_all(path).unwrap();
    }
    std::fs::write(folder.join("refs").join(reference), COMMIT).unwrap();
    for (i, name) in names.iter().enumerate() {
        std::fs::write(folder.join(format!("blobs/{i}")), *name).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("../../blobs/{i}"), dir.join(name)).unwrap();
        #[cfg(not(unix))]
        std::fs::write(dir.join(name), *name).unwrap();
    }
    dir
}

fn vars(pairs: &[(&str, &str)]) -> Result<Settings, HubError> {
    let map: HashMap<&str, &str> = pairs.iter().copied().collect();
    Settings::from_vars(|name| map.get(name).map(Into::into))
}

#[test]
fn names_have_an_owner_and_maybe_a_revision() {
    let parse = |text: &str| text.parse::<ModelName>();
    let model = parse("hf:openai/clip-vit-base-patch32").unwrap();
    assert_eq!(model.to_string(), "hf:openai/clip-vit-base-patch32@main");
    assert_eq!(parse("hf:a/b@refs/pr/5").unwrap().revision(), "refs/pr/5");
    assert_eq!(parse("a/b.c_d@v1.0").unwrap().repository(), "a/b.c_d");
    for bad in [
        "hf:",
        "hf:b",
        "hf:/b",
        "hf:a/",
        "hf:a/b/c",
        "hf:../b",
        "hf:a/..",
        "hf:a/b@",
        "hf:a/b@../x",
        "hf:a/b@/x",
        "hf:a/b@x/",
        "hf:a/b@-x",
        "hf:a--b/c",
        "hf:a/b c",
        "hf:a/b@x?y",
        "hf:a/b%2e",
        "hf:a/b@c@d",
    ] {
        let error = parse(bad).unwrap_err().to_string();
        assert!(error.contains("write hf:owner/name"), "{bad}: {error}");
    }
}

#[test]
fn the_variables_of_the_python_tools_are_honoured_in_their_order() {
    let cache = |pairs: &[(&str, &str)]| vars(pairs).unwrap().cache;
    assert_eq!(cache(&[("HOME", "/u")]), Path::new("/u/.cache/huggingface/hub"));
    assert_eq!(cache(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
    let home = [("HOME", "/u"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/h")];
    assert_eq!(cache(&home), Path::new("/u/h/hub"));
    assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
    assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "")]), Path::new("/h/hub"));
    assert!(vars(&[]).unwrap_err().to_string().contains("HF_HUB_CACHE"));
    let offline = |value: &str| vars(&[("HOME", "/u"), ("HF_HUB_OFFLINE", value)]).unwrap().offline;
    assert_eq!(["1", "true", "Yes", "ON"].map(offline), [true; 4]);
    assert_eq!(["0", "false", "", "no"].map(offline), [false; 4]);
    let endpoint = |value: &str| vars(&[("HOME", "/u"), ("HF_ENDPOINT", value)]).map(|s| s.endpoint);
    assert_eq!(endpoint("").unwrap(), "https://huggingface.co");
    assert_eq!(endpoint("https://mirror.example/").unwrap(), "https://mirror.example");
    assert!(endpoint("mirror.example").is_err());
}

#[test]
fn a_token_comes_from_the_environment_or_its_file_and_is_never_printed() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap();
    assert_eq!(vars(&[("HF_HOME", dir)]).unwrap().token, None);
    std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
    assert_eq!(vars(&[("HF_HOME", dir)]).unwrap().token, Token::new("hf_file"));
    let both = vars(&[("HF_HOME", dir), ("HF_TOKEN", " hf_env ")]).unwrap();
    assert_eq!(both.token, Token::new("hf_env"));
    assert!(!format!("{both:?}").contains("hf_env"));
    let none = vars(&[("HF_HOME", dir), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap();
    assert_eq!(none.token, None);
    assert!(vars(&[("HF_HOME", dir), ("HF_TOKEN", "a\r\nHost: b")]).is_err());
}

#[test]
fn a_cached_model_needs_no_network() {
    let cache = tempfile::tempdir().unwrap();
    let dir = cached(cache.path(), "main", &WHOLE);
    let online = Settings { offline: false, ..settings(cache.path()) };
    for settings in [settings(cache.path()), online] {
        assert_eq!(resolve(&name(), &settings, &mut quiet()).unwrap(), dir);
    }
    let pinned = format!("owner/name@{COMMIT}").parse().unwrap();
    assert_eq!(resolve(&pinned, &settings(cache.path()), &mut quiet()).unwrap(), dir);
    let other = "owner/name@v2".parse().unwrap();
    assert!(resolve(&other, &settings(cache.path()), &mut quiet()).is_err());
}

#[test]
fn a_revision_may_contain_slashes() {
    let cache = tempfile::tempdir().unwrap();
    let dir = cached(cache.path(), "refs/pr/5", &WHOLE);
    let model = "owner/name@refs/pr/5".parse().unwrap();
    assert_eq!(resolve(&model, &settings(cache.path()), &mut quiet()).unwrap(), dir);
    // A part of it is a folder, not a reference.
    let part = "owner/name@refs/pr".parse().unwrap();
    assert!(matches!(resolve(&part, &settings(cache.path()), &mut quiet()), Err(HubError::Offline { .. })));
}

#[test]
fn every_published_layout_is_found() {
    for names in [
        ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"],
        ["open_clip_config.json", "open_clip_pytorch_model.bin", "tokenizer.json"],
        ["config.json", "pytorch_model.bin", "preprocessor_config.json"],
    ] {
        let cache = tempfile::tempdir().unwrap();
        let dir = cached(cache.path(), "main", &names);
        assert_eq!(resolve(&name(), &settings(cache.path()), &mut quiet()).unwrap(), dir);
    }
}

#[test]
fn a_config_of_another_library_beside_an_open_clip_model_does_not_count() {
    let names = ["config.json", "model.safetensors", "open_clip_config.json", "open_clip_model.safetensors"];
    let names = names.map(str::to_owned).into();
    let form = |config: &str| files::form(&names, |_| Ok(config.into())).unwrap().unwrap().weights;
    assert_eq!(form(r#"{"architecture": "vit_base_patch16_224"}"#), "open_clip_model.safetensors");
    assert_eq!(form(r#"{"model_type": "clip"}"#), "model.safetensors");
}

#[test]
fn a_sharded_model_is_whole_with_its_last_shard() {
    let cache = tempfile::tempdir().unwrap();
    let index = "model.safetensors.index.json";
    let dir = cached(
        cache.path(),
        "main",
        &["config.json", "preprocessor_config.json", "vocab.txt", "a.safetensors"],
    );
    let write = |text: &str| std::fs::write(dir.join(index), text).unwrap();
    write(r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#);
    assert!(resolve(&name(), &settings(cache.path()), &mut quiet()).is_err());
    std::fs::write(dir.join("b.safetensors"), "").unwrap();
    assert_eq!(resolve(&name(), &settings(cache.path()), &mut quiet()).unwrap(), dir);
    for bad in [r#"{"weight_map": {"x": "../a"}}"#, r#"{"weight_map": {}}"#, "{}", "["] {
        write(bad);
        let error = resolve(&name(), &settings(cache.path()), &mut quiet()).unwrap_err();
        assert!(error.to_string().contains(index), "{error}");
    }
}

#[test]
fn what_is_not_cached_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let model = "hf:owner/name@v2".parse().unwrap();
    let error = resolve(&model, &settings(cache.path()), &mut quiet()).unwrap_err().to_string();
    for part in ["hf:owner/name@v2", "'hf download owner/name --revision v2'", "HF_HUB_OFFLINE=0"] {
        assert!(error.contains(part), "{part} in: {error}");
    }
    assert!(error.contains(cache.path().to_str().unwrap()), "{error}");
}

#[cfg(not(feature = "download"))]
#[test]
fn a_program_without_downloads_says_how_to_get_them() {
    let cache = tempfile::tempdir().unwrap();
    let online = Settings { offline: false, ..settings(cache.path()) };
    let error = resolve(&name(), &online, &mut quiet()).unwrap_err().to_string();
    assert!(error.contains("'hf download owner/name --revision main'"), "{error}");
    assert!(error.contains("--features hub"), "{error}");
}

#[test]
fn a_damaged_cache_is_named() {
    let cache = tempfile::tempdir().unwrap();
    cached(cache.path(), "main", &WHOLE);
    std::fs::write(cache.path().join("models--owner--name/refs/main"), "../../elsewhere").unwrap();
    let error = resolve(&name(), &settings(cache.path()), &mut quiet()).unwrap_err().to_string();
    assert!(error.contains("refs/main holds no commit; delete it"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_link_without_contents_does_not_count() {
    let cache = tempfile::tempdir().unwrap();
    cached(cache.path(), "main", &WHOLE);
    std::fs::remove_file(cache.path().join("models--owner--name/blobs/3")).unwrap();
    assert!(resolve(&name(), &settings(cache.path()), &mut quiet()).is_err());
}
