//! Models by name: what is cached is used, what is not says how to get it.

use std::fs;

use crate::support::{diptych, mini_model, succeed};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn a_cached_model_is_the_same_by_its_name_as_by_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("hub/models--owner--name");
    let snapshot = folder.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(folder.join("refs")).unwrap();
    fs::write(folder.join("refs/main"), COMMIT).unwrap();
    let model = mini_model();
    for entry in fs::read_dir(&model).unwrap().flatten().filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), snapshot.join(entry.file_name())).unwrap();
    }
    fs::write(dir.path().join("texts.txt"), "a clear lung\n").unwrap();
    let args = |model, out| ["embed", "--model", model, "--texts", "texts.txt", "--out", out];
    succeed(dir.path(), &args(model.to_str().unwrap(), "directory"));
    let by_name = diptych(dir.path(), &args("hf:owner/name", "name"))
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HUB_CACHE", dir.path().join("hub"))
        .output()
        .unwrap();
    assert!(by_name.status.success(), "{}", String::from_utf8_lossy(&by_name.stderr));
    assert_eq!(fs::read(dir.path().join("name")).unwrap(), fs::read(dir.path().join("directory")).unwrap());
}

#[test]
fn a_model_that_is_not_cached_says_how_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let said = |model: &str| {
        let args = ["embed", "--model", model, "--texts", "texts.txt", "--out", "out"];
        let output = diptych(dir.path(), &args)
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HUB_CACHE", dir.path())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{model} was found");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let offline = said("hf:owner/name@v2");
    assert!(offline.contains("'hf download owner/name --revision v2'"), "{offline}");
    assert!(offline.contains("HF_HUB_OFFLINE=0"), "{offline}");
    let wrong = said("hf:name");
    assert!(wrong.contains("write hf:owner/name"), "{wrong}");
}
