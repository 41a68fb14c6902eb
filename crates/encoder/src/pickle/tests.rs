//! Checkpoints as a user meets them: published, odd, damaged, and hostile.
#![allow(clippy::unwrap_used)]

use super::writer::{Tensor, archive, floats, one, state, text, zip, zip_of};
use super::*;

const CALL: &str = "never run";

#[track_caller]
fn refused(file: &[u8], words: &str) {
    let error = read(file).expect_err(words).to_string();
    assert!(error.contains(words), "expected '{words}' in: {error}");
}

fn values(file: &[u8], tensor: &PickledTensor) -> Vec<f32> {
    let bytes = tensor.bytes.of(file);
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn a_published_checkpoint_holds_the_tensors_of_its_safetensors_file() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/openclip-biomedclip/model");
    let Ok(file) = std::fs::read(dir.join("open_clip_pytorch_model.bin")) else {
        eprintln!("SKIPPED: {} is absent", dir.display());
        return;
    };
    let reference = std::fs::read(dir.join("open_clip_model.safetensors")).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&reference).unwrap();
    let tensors = read(&file).unwrap();
    assert_eq!(tensors.len(), reference.len());
    for tensor in &tensors {
        let expected = reference.tensor(&tensor.name).unwrap();
        assert_eq!((tensor.dtype, tensor.shape.as_slice()), (expected.dtype(), expected.shape()));
        assert!(matches!(tensor.bytes, TensorBytes::InFile(_)), "{} is mapped", tensor.name);
        assert_eq!(tensor.bytes.of(&file), expected.data(), "{}", tensor.name);
    }
}

#[test]
fn rows_slices_and_transposed_tensors_have_their_own_order() {
    let of = |offset, shape: &'static [i64], stride: &'static [i64]| {
        let file = one(Tensor { offset, shape, stride, ..Tensor::default() });
        let tensor = read(&file).unwrap().remove(0);
        (matches!(tensor.bytes, TensorBytes::InFile(_)), values(&file, &tensor))
    };
    assert_eq!(of(0, &[2, 3], &[3, 1]), (true, vec![0., 1., 2., 3., 4., 5.]));
    assert_eq!(of(3, &[3], &[1]), (true, vec![3., 4., 5.]));
    assert_eq!(of(5, &[], &[]), (true, vec![5.]));
    assert_eq!(of(0, &[0, 4], &[4, 1]), (true, vec![]));
    // The stride of a dimension of one says nothing.
    assert_eq!(of(1, &[1, 2], &[i64::MAX, 1]), (true, vec![1., 2.]));
    assert_eq!(of(0, &[3, 2], &[1, 3]), (false, vec![0., 3., 1., 4., 2., 5.]));
    assert_eq!(of(1, &[2, 1, 2], &[3, i64::MAX, 1]), (false, vec![1., 2., 4., 5.]));
    assert_eq!(of(2, &[3], &[0]), (false, vec![2., 2., 2.]));
}

#[test]
fn tensors_may_share_a_storage() {
    let pickle = state(&[
        ("a", Tensor::default()),
        ("b", Tensor { offset: 3, shape: &[3], stride: &[1], ..Tensor::default() }),
    ]);
    let file = archive(&pickle, &[("0", &floats(&[0., 1., 2., 3., 4., 5.]))]);
    let tensors = read(&file).unwrap();
    assert_eq!(values(&file, &tensors[1]), [3., 4., 5.]);
}

#[test]
fn a_training_checkpoint_is_unwrapped_and_loses_the_module_prefix() {
    let mut pickle = b"\x80\x02}(".to_vec();
    text(&mut pickle, "epoch");
    pickle.extend(b"K\x03");
    text(&mut pickle, "state_dict");
    pickle.extend(b"ccollections\nOrderedDict\n)R(");
    text(&mut pickle, "module.w");
    Tensor::default().write(&mut pickle, false);
    pickle.push(b'u');
    // The metadata that state_dict() carries along.
    pickle.push(b'}');
    text(&mut pickle, "_metadata");
    pickle.extend(b"}sb");
    text(&mut pickle, "optimizer");
    pickle.extend(b"]u.");
    let file = archive(&pickle, &[("0", &floats(&[0.; 6]))]);
    let tensors = read(&file).unwrap();
    assert_eq!((tensors.len(), tensors[0].name.as_str()), (1, "w"));
}

#[test]
fn the_entry_model_is_a_state_dict_too() {
    let mut pickle = b"\x80\x02}".to_vec();
    text(&mut pickle, "model");
    pickle.extend(&state(&[("w", Tensor::default())])[2..]);
    let end = pickle.len() - 1;
    pickle.splice(end.., *b"s.");
    let tensors = read(&archive(&pickle, &[("0", &floats(&[0.; 6]))])).unwrap();
    assert_eq!((tensors.len(), tensors[0].name.as_str()), (1, "w"));
    // A tensor of that name belongs to the state dict itself.
    let pickle = state(&[("model", Tensor::default()), ("w", Tensor::default())]);
    assert_eq!(read(&archive(&pickle, &[("0", &floats(&[0.; 6]))])).unwrap().len(), 2);
}

#[test]
fn names_from_the_file_are_fit_to_print() {
    let pickle = state(&[("\x1b[31m\n", Tensor { offset: 1, ..Tensor::default() })]);
    refused(&archive(&pickle, &[("0", &floats(&[0.; 6]))]), "the tensor '?[31m?' reaches");
}

#[test]
fn prefixes_and_names_must_be_consistent() {
    let file = |names: [&str; 2]| {
        let pickle = state(&names.map(|name| (name, Tensor::default())));
        archive(&pickle, &[("0", &floats(&[0.; 6]))])
    };
    refused(&file(["module.a", "b"]), "'b'");
    refused(&file(["a", "a"]), "'a' is stored twice");
    assert_eq!(read(&file(["a", "module.b"])).unwrap()[1].name, "module.b");
}

#[test]
fn a_state_dict_holds_tensors_and_nothing_else() {
    let with = |value: &[u8]| {
        let mut pickle = b"\x80\x02}".to_vec();
        text(&mut pickle, "temperature");
        pickle.extend(value);
        pickle.extend(b"s.");
        archive(&pickle, &[])
    };
    refused(&with(b"K\x01"), "'temperature' is a number, no tensor");
    refused(&with(b"}"), "'temperature' is a dict, no tensor");
    refused(&archive(b"\x80\x02].", &[]), "a list instead of a state dict");
    refused(&archive(b"\x80\x02}.", &[]), "empty");
    refused(&archive(b"\x80\x02}K\x01K\x02s.", &[]), "a number as name");
}

#[test]
fn code_is_refused_by_name() {
    let code = |body: &[u8]| archive(&[b"\x80\x04".as_slice(), body].concat(), &[]);
    for (body, name) in [
        (b"cos\nsystem\nX\x02\0\0\0id\x85R.".as_slice(), "os.system"),
        (b"cposix\nsystem\nX\x02\0\0\0id\x85R.", "posix.system"),
        (b"(X\x02\0\0\0idios\nsystem\n.", "an INST of os.system"),
        (b"\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.", "os.system"),
        (b"c__builtin__\neval\n.", "__builtin__.eval"),
        (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        (b"ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"ccollections\nOrderedDict\n)}\x92.", "NEWOBJ_EX"),
        (b"(ccollections\nOrderedDict\no.", "OBJ"),
        (b"\x82\x01.", "EXT"),
        (b"\x83\x01\0.", "EXT"),
        (b"\x84\x01\0\0\0.", "EXT"),
        (b"Pos\n.", "PERSID"),
        (b"K\x01)R.", "no listed name"),
        (b"ctorch\nFloatStorage\n)R.", "unusual arguments"),
        (b"K\x01}b.", "BUILD"),
        (b"ccollections\nOrderedDict\n}b.", "BUILD"),
        (b"\x97.", "out-of-band"),
    ] {
        refused(&code(body), name);
        refused(&code(body), CALL);
    }
    for other in ["m/constants.pkl", "m/code/__torch__/model.py"] {
        refused(&zip(&[("m/data.pkl", b"\x80\x02}."), (other, b"")]), "TorchScript");
    }
}

#[test]
fn hostile_pickles_are_refused_in_little_memory() {
    let of = |body: &[u8]| archive(&[b"\x80\x02".as_slice(), body].concat(), &[]);
    refused(&of(b"\x8b\xff\xff\xff\x7f."), "ends early");
    refused(&of(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), "ends early");
    refused(&of(b"."), "stack is empty");
    refused(&of(b"(0."), "stack is empty");
    refused(&of(b"t."), "no mark");
    refused(&of(b"h\x07."), "remembered");
    refused(&of(b"}K\x01e."), "no mark");
    refused(&of(b"]q\0K\x01s."), "stack is empty");
    refused(&of(b"}(K\x01u."), "without a value");
    refused(&of(b"I1\n."), "protocol 0");
    refused(&of(b"}.}"), "follow its end");
    // A list within itself, and a state dict within itself.
    refused(&of(b"]q\0h\0a."), "a list instead");
    refused(&of(b"}q\0X\x01\0\0\0wh\0s."), "a dict, no tensor");
    refused(&of(&b"N".repeat(5 << 20)), "values in its pickle");
    refused(&of(&b"(".repeat(5 << 20)), "values in its pickle");
    for id in ["X\x02\0\0\0idQ", "(NNNNNtQ", "(X\x07\0\0\0storageNNNNtQ", ")Q"] {
        refused(&of(format!("{id}.").as_bytes()), "persistent identifier");
    }
}

#[test]
fn tensors_stay_within_their_storage() {
    let base = Tensor::default;
    refused(&one(Tensor { offset: 1, ..base() }), "'w' reaches element 6 of a storage with 6");
    refused(&one(Tensor { offset: -1, ..base() }), "storage offset -1");
    refused(&one(Tensor { numel: 7, ..base() }), "claims 7 elements");
    refused(&one(Tensor { numel: -1, ..base() }), "claims -1 elements");
    refused(&one(Tensor { numel: i64::MAX, ..base() }), "claims");
    refused(&one(Tensor { kind: "HalfStorage", ..base() }), "claims 6 elements of 2 bytes");
    refused(&one(Tensor { key: "../0", ..base() }), "'../0', which is missing");
    refused(&one(Tensor { shape: &[2], ..base() }), "1 dimensions and 2 strides");
    refused(&one(Tensor { shape: &[-2, 3], ..base() }), "impossible shape");
    refused(&one(Tensor { shape: &[i64::MAX, 3], ..base() }), "impossible");
    refused(&one(Tensor { stride: &[i64::MAX, 1], ..base() }), "reaches");
    refused(&one(Tensor { stride: &[-3, 1], ..base() }), "impossible strides");
    refused(&one(Tensor { shape: &[1 << 40], stride: &[0], ..base() }), "too often");
    refused(&one(Tensor { shape: &[1; 9], stride: &[1; 9], ..base() }), "9 dimensions");
}

#[test]
fn a_container_that_lies_is_refused() {
    let pickle = state(&[("w", Tensor::default())]);
    let data = floats(&[0.; 6]);
    let entries: [(&str, &[u8]); 2] = [("m/data.pkl", &pickle), ("m/data/0", &data)];
    let good = zip(&entries);
    assert_eq!(read(&good).unwrap().len(), 1);
    let directory = good.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let edit = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    refused(&edit(directory + 10, &[8, 0]), "m/data.pkl is compressed");
    refused(&edit(directory + 8, &[1, 0]), "encrypted");
    refused(&edit(directory + 20, &[1, 0, 0, 0]), "two sizes differ");
    refused(&edit(directory + 20, &[0xf0; 8]), "outside the file");
    refused(&edit(directory + 20, &[0xff; 8]), "zip64");
    refused(&edit(directory + 42, &[9, 0, 0, 0]), "not where the directory says");
    refused(&edit(directory + 42, &[0xf0; 4]), "outside the file");
    refused(&edit(good.len() - 6, &[0xf0; 4]), "beyond the file");
    refused(&edit(good.len() - 12, &[0xff; 2]), "zip64 record");
    refused(&edit(good.len() - 12, &[3, 0]), "malformed");
    refused(&edit(good.len() - 12, &[1, 0]), "disagree");
    refused(&zip(&[entries[0], entries[0]]), "twice");
    refused(&zip(&[entries[0], ("n/data.pkl", b"")]), "several data.pkl");
    refused(&zip(&[entries[1]]), "without data.pkl");
    refused(&zip(&[entries[0]]), "missing");
    refused(&zip(&[entries[0], ("m/byteorder", b"big")]), "'big'");
    refused(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull");
    refused(b"", "no checkpoint");
}

#[test]
fn an_archive_beyond_four_gigabytes_has_wide_sizes() {
    let pickle = state(&[("w", Tensor::default())]);
    let data = floats(&[0., 1., 2., 3., 4., 5.]);
    let good = zip_of(&[("m/data.pkl", &pickle), ("m/data/0", &data)], true);
    let expected = read(&good).unwrap();
    assert_eq!(values(&good, &expected[0]), [0., 1., 2., 3., 4., 5.]);
    for at in 0..good.len() {
        let mut file = good.clone();
        file[at] ^= 0x80;
        if let Ok(tensors) = read(&file) {
            assert_eq!(tensors, expected, "byte {at}");
        }
    }
}

#[test]
fn the_error_of_a_model_names_file_tensor_and_remedy() {
    let error = read(&one(Tensor { offset: 1, ..Tensor::default() })).unwrap_err();
    let error = error.in_file(Path::new("model/pytorch_model.bin")).to_string();
    assert!(error.starts_with("model/pytorch_model.bin cannot be read: the tensor 'w' reaches"), "{error}");
    assert!(error.ends_with("safetensors.torch.save_file"), "{error}");
}

#[test]
fn a_flipped_byte_is_an_error_or_changes_nothing() {
    let pickle = state(&[
        ("a", Tensor::default()),
        ("b", Tensor { shape: &[3, 2], stride: &[1, 3], ..Tensor::default() }),
    ]);
    let good = archive(&pickle, &[("0", &floats(&[0., 1., 2., 3., 4., 5.]))]);
    let expected = read(&good).unwrap();
    let contents = |file: &[u8], tensors: &[PickledTensor]| -> Vec<_> {
        tensors.iter().map(|t| (t.name.clone(), t.shape.clone(), values(file, t))).collect::<Vec<_>>()
    };
    let mut harmless = 0;
    for at in 0..good.len() {
        for mask in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut file = good.clone();
            file[at] ^= mask;
            if let Ok(tensors) = read(&file) {
                assert_eq!(contents(&file, &tensors), contents(&good, &expected), "byte {at} ^ {mask}");
                harmless += 1;
            }
        }
    }
    assert!(harmless > 0, "times and versions of the container do not matter");
    for len in 0..good.len() {
        assert!(read(&good[..len]).is_err(), "cut to {len} bytes");
    }
}

/// Without the checksum in the way, damage reaches the machine itself.
#[test]
fn a_damaged_pickle_never_panics() {
    let pickle = state(&[
        ("a", Tensor::default()),
        ("b", Tensor { offset: 3, shape: &[3], stride: &[1], ..Tensor::default() }),
    ]);
    let data = floats(&[0., 1., 2., 3., 4., 5.]);
    let (mut accepted, mut rejected) = (0, 0);
    let mut count = |file: &[u8]| match read(file) {
        Ok(tensors) => {
            tensors.iter().for_each(|t| assert!(t.bytes.of(file).len() <= file.len()));
            accepted += 1;
        }
        Err(_) => rejected += 1,
    };
    for at in 0..pickle.len() {
        for byte in 0..=255 {
            let mut pickle = pickle.clone();
            pickle[at] = byte;
            count(&archive(&pickle, &[("0", &data)]));
        }
    }
    // Runs of random opcodes after a valid beginning.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..20_000 {
        let mut body = pickle[..pickle.len() / 2].to_vec();
        for _ in 0..24 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            body.push((seed >> 56) as u8);
        }
        count(&archive(&body, &[("0", &data)]));
    }
    assert!(accepted > 0 && rejected > 1000, "{accepted} accepted, {rejected} rejected");
}

/// The stream that PyTorch wrote before 1.6.
fn legacy() -> Vec<u8> {
    let mut file =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    file.extend(b"\x80\x02}");
    text(&mut file, "w");
    Tensor { key: "94", ..Tensor::default() }.write(&mut file, true);
    file.extend(b"s.\x80\x02](");
    text(&mut file, "94");
    file.extend(b"e.");
    file.extend(6i64.to_le_bytes());
    file.extend(floats(&[0., 1., 2., 3., 4., 5.]));
    file
}

#[test]
fn the_older_stream_is_read() {
    let file = legacy();
    let tensors = read(&file).unwrap();
    assert_eq!(values(&file, &tensors[0]), [0., 1., 2., 3., 4., 5.]);
    for len in 0..file.len() {
        assert!(read(&file[..len]).is_err(), "cut to {len} bytes");
    }
    for at in 0..file.len() {
        for byte in 0..=255 {
            let mut file = file.clone();
            file[at] = byte;
            if let Ok(tensors) = read(&file) {
                assert!(tensors[0].bytes.of(&file).len() <= file.len());
            }
        }
    }
    refused(&[file.as_slice(), b"x"].concat(), "1 bytes follow");
}
